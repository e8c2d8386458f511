"""The report of a class: what stands on it, whose names don't, and what becomes of odd input."""

from __future__ import annotations

import csv
import json
import re
import stat
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest

from devops_lab.commands import cli
from devops_lab.errors import BadInput, Damaged
from devops_lab.exercises import catalogue
from devops_lab.model import DrillTimes, Grade, Mark, Prediction
from devops_lab.workbook.classroom import page, report
from tests.classroom.examples import a_class

CHROMIUM_OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
EVIL = '<script>alert(1)</script>"><img src="http://x.invalid/y">'


class Tags(HTMLParser):
    """The tags of a page, the addresses that they name, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.addresses: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "action", "data")]

    def handle_data(self, data: str) -> None:
        self.text += data


def wrong(name: str, seen: str, **more: object) -> Mark:
    most = float(catalogue()[name].points) if name in catalogue() else 1.0
    mark = Mark(name, "not yet", "not yet", seen, 0.0, most, attempts=3)
    return replace(mark, **more)  # type: ignore[arg-type]


def written(folder: Path, grades: Sequence[Grade], names: bool = False) -> Path:
    (folder / "grades.json").write_bytes(msgspec.json.encode(grades))
    return report.write_report(folder / "grades.json", names=names)[0]


def rows(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


# ---- names
def test_no_name_is_on_the_page_unless_it_is_asked_for(tmp_path: Path) -> None:
    grades = a_class(8)
    remark = "its record is that of Learner03, too"
    grades[0] = replace(grades[0], remarks=[remark], marks=[wrong("plan-1", "learner05/shop is not there")])
    html = written(tmp_path, grades).read_text("utf-8")
    assert re.findall(r"(?i)learner\d", html) == []
    key = json.loads((tmp_path / "report/with-names/pseudonyms.json").read_text("utf-8"))
    assert f"its record is that of {key['learner03']}, too" in html
    assert {name for name in key if name in written(tmp_path, grades, names=True).read_text("utf-8")} == {
        *key
    }


def test_pseudonyms_stay_and_only_their_owner_can_read_the_key(tmp_path: Path) -> None:
    key = tmp_path / "key.json"
    first = report.pseudonyms(key, ["ada", "grace"])
    again = report.pseudonyms(key, ["grace", "linus", "ada"])
    assert first.items() < again.items()
    assert len(set(again.values())) == 3
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    many = report.pseudonyms(key, map(str, range(3000)))
    assert len(set(many.values())) == 3003
    assert report.pseudonyms(tmp_path / "other.json", map(str, range(3000))) != many  # drawn, not computed


def test_what_names_learners_lies_apart_and_is_the_owners(tmp_path: Path) -> None:
    folder = written(tmp_path, a_class(3)).parent
    assert {path.name for path in folder.iterdir()} == {"report.html", "with-names"}
    assert stat.S_IMODE((folder / "with-names").stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in (folder / "with-names").iterdir()} == {0o600}


# ---- what learners wrote stays text
def test_html_of_a_learner_stays_text(tmp_path: Path) -> None:
    guess = Prediction(EVIL, "number", EVIL, answer=2.0, truth=1.0)
    marks = [wrong("plan-1", EVIL), wrong(f"own-{EVIL}", EVIL)]
    grade = Grade(EVIL, EVIL, marks, [guess], [DrillTimes(EVIL, 1.0)], [EVIL])
    for names in (True, False):
        found = Tags(written(tmp_path, [grade], names).read_text("utf-8"))
        assert not found.tags & {"script", "img", "link", "iframe", "object"}
        assert found.addresses == []
    assert EVIL in Tags(written(tmp_path, [grade], True).read_text("utf-8")).text


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@x", "\t=1", " =HYPERLINK(1)"])
def test_no_cell_is_a_formula(name: str, tmp_path: Path) -> None:
    folder = written(tmp_path, [Grade(name, "", [wrong("plan-1", "no")])]).parent / "with-names"
    cells = [cell for file in folder.glob("*.csv") for row in rows(file) for cell in row]
    assert f"'{name}" in cells
    assert [cell for cell in cells if cell.strip()[:1] in ("=", "+", "-", "@")] == []


# ---- files of grades
def test_moodle_and_canvas_find_persons_and_points(tmp_path: Path) -> None:
    right = Mark("plan-2", "right", "right", "", 2.0, 2.0)
    ada = Grade(
        "ada@x.invalid", "a", [right, wrong("code-1", "no"), replace(right, exercise="plan-3", points=1.5)]
    )
    cut_off = Grade("bob@x.invalid", "", remarks=["no archive"])
    folder = written(tmp_path, [ada, cut_off]).parent / "with-names"
    titles = ["DevOps lab: plan", "DevOps lab: code"]
    assert rows(folder / "moodle.csv") == [
        ["Email address", *titles],
        ["ada@x.invalid", "3.5", "0"],
        ["bob@x.invalid", "-", "-"],
    ]
    head, possible, first, second = rows(folder / "canvas.csv")
    assert head == ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", *titles]
    assert possible == ["    Points Possible", "", "", "", "", "4", f"{ada.marks[1].most:g}"]
    assert first == ["ada@x.invalid", "", "", "ada@x.invalid", "", "3.5", "0"]
    assert second[5:] == ["-", "-"]


@pytest.mark.parametrize(
    ("names", "column"),
    [(["12", "345"], "ID number"), (["ada", "b@x.y"], "Username"), (["b@x.y"], "Email address")],
)
def test_moodles_column_is_what_the_names_are(names: list[str], column: str) -> None:
    assert report.moodle([Grade(name, "") for name in names])[0] == [column]


def test_no_part_has_more_points_than_moodle_takes() -> None:
    assert max(page.parts(a_class(2)).values()) <= 100


# ---- what stands on the page
def test_answers_that_differ_in_figures_are_one() -> None:
    words = ["8 points, room for 6", "9 points, room for 6", "no sprint"]
    grades = [Grade(str(n), "", [wrong("plan-5", seen)]) for n, seen in enumerate(words)]
    grades.append(Grade("idle", "", [wrong("plan-5", "no sprint", attempts=0)]))
    grades.append(Grade("done", "", [Mark("plan-5", "right", "right", "no sprint", 2, 2)]))
    assert page.wrong_answers(grades, str) == [(2, "plan-5", words[0]), (1, "plan-5", "no sprint")]


def test_stuck_is_who_checked_twice_and_has_not_solved_it() -> None:
    marks = [
        wrong("plan-1", "no", hints_used=2), wrong("plan-2", "no", attempts=1),
        wrong("plan-3", "no", claimed="right"),
        Mark("plan-4", "right", "right", "", 2, 2, attempts=9),
    ]  # fmt: skip
    assert page.stuck([Grade("ada", "", marks)], {"ada": "wren-10"}) == [("plan-1", ["wren-10 (3, 2)"])]
    assert page.standing(marks[2]) == "claimed"


def test_columns_stand_in_the_workbooks_order_with_a_teachers_own_at_the_end_of_their_part() -> None:
    names = ["own-1", "code-1", "plan-9", "plan-2", "welcome-1"]
    grade = Grade("ada", "", [wrong(name, "no") for name in names])
    assert page.columns([grade]) == ["welcome-1", "plan-2", "plan-9", "code-1", "own-1"]


def test_guesses_and_times_are_told() -> None:
    def guess(answer: float | str, truth: float | str) -> Prediction:
        kind = "number" if isinstance(answer, float) else "choice"
        return Prediction("plan-sprints", kind, "How many?", answer=answer, truth=truth)  # type: ignore[arg-type]

    open_ = Prediction("plan-sprints", "number", "How many?", answer=3.0)
    grade = Grade(
        "ada", "", predictions=[guess(5.0, 10.0), guess(900.0, 1.0), guess(0.0, 1.0), guess("a", "a"), open_],
        drills=[DrillTimes("leak", 60.0, None, None), DrillTimes("leak", 20.0, 80.0)],
    )  # fmt: skip
    (row,) = page.calibration([grade])
    assert (row["right"], row["all"], row["middle"]) == (2, 4, "0.5 ×")
    assert row["dots"] == [(42.5, "0.5 ×"), (100.0, "> 100 ×"), (0.0, "< 1/100 ×")]
    ((fault, count, stages),) = page.drills([grade])
    assert (fault, count) == ("leak", 2)
    assert [(s["name"], s["reached"], s["middle"]) for s in stages] == [
        ("detected", 2, "40 s"), ("diagnosed", 1, "80 s"), ("restored", 0, "never"),
    ]  # fmt: skip


def test_a_class_that_handed_in_nothing_readable_gets_a_page(tmp_path: Path) -> None:
    text = Tags(
        written(tmp_path, [Grade("ada", "", remarks=["is no archive"])], True).read_text("utf-8")
    ).text
    assert "No exercise of any hand-in could be looked at" in text
    assert "is no archive" in text


# ---- odd input
@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        (None, BadInput, "can't be read"), (b"", Damaged, "no grades"), (b"\xff", Damaged, "no grades"),
        (b"{}", Damaged, "no grades"), (b'[{"learner": 3}]', Damaged, r"learner"),
        (b"[]", BadInput, "no hand-in"),
    ],
)  # fmt: skip
def test_what_is_no_list_of_grades_is_refused(
    data: bytes | None, error: type[Exception], words: str, tmp_path: Path
) -> None:
    path = tmp_path / "grades.json"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(error, match=words) as refused:
        report.write_report(path)
    assert "classroom grade" in str(refused.value)
    assert not (tmp_path / "report").exists()


def test_a_damaged_key_and_a_file_in_the_way_are_named(tmp_path: Path) -> None:
    key = written(tmp_path, a_class(1)).parent / "with-names/pseudonyms.json"
    key.write_text("[1]")
    with pytest.raises(Damaged, match=r"pseudonyms\.json is no key"):
        report.write_report(tmp_path / "grades.json")
    (tmp_path / "taken").write_text("")
    with pytest.raises(BadInput, match="can't be written"):
        report.write_report(tmp_path / "grades.json", tmp_path / "taken")


# ---- how it looks
@pytest.mark.browser
def test_thirty_hand_ins_fit_the_screen_and_one_sheet_and_ask_no_network(
    tmp_path: Path, chromium: str
) -> None:
    from axe_playwright_python.sync_playwright import Axe
    from playwright.sync_api import sync_playwright

    html = written(tmp_path, a_class(30))
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, headless=True, args=CHROMIUM_OPTIONS)
        opened = browser.new_page(viewport={"width": 1100, "height": 900})
        asked: list[str] = []
        said: list[str] = []
        opened.on("request", lambda request: asked.append(request.url))
        opened.on("console", lambda message: said.append(message.text))
        opened.goto(html.as_uri())
        assert opened.evaluate("document.documentElement.scrollWidth") <= 1100
        printed = opened.pdf(prefer_css_page_size=True, print_background=True)
        examined = browser.new_context(
            bypass_csp=True
        ).new_page()  # axe is a script, and the page allows none
        examined.goto(html.as_uri())
        barriers = [each["id"] for each in Axe().run(examined).response["violations"]]
        browser.close()
    assert (asked, said, barriers) == ([html.as_uri()], [], [])
    boxes = re.findall(rb"/MediaBox \[0 0 (\d+)[.\d]* (\d+)", printed)
    assert [(int(wide), int(high)) for wide, high in boxes] == [(841, 1191)]  # A3, in points


def test_the_command_says_what_it_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "grades.json").write_bytes(msgspec.json.encode(a_class(2)))
    call = ["classroom", "report", str(tmp_path / "grades.json"), "--out", str(tmp_path / "here")]
    with pytest.raises(SystemExit) as end:
        cli.main(call)
    assert end.value.code in (0, None)
    told = capsys.readouterr().out.split()
    assert [Path(path).exists() for path in told] == [True] * 4
    assert told[0] == str(tmp_path / "here/report.html")
