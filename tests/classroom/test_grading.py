"""Hand-ins: what is in one, what it is worth, and that nobody suffers from what others put into theirs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import psutil
import pytest

from devops_lab.errors import BadInput, NotALab
from devops_lab.exercises import catalogue, exercise
from devops_lab.lab import Lab
from devops_lab.model import Grade, HandIn, Mark
from devops_lab.platform import variables
from devops_lab.platform.git import git, identity
from devops_lab.workbook.classroom import fence, hand_in, inside, pack, unpack
from devops_lab.workbook.classroom import grade as grading
from devops_lab.workbook.classroom.grade import grade

DONE = ("plan-3", "code-1", "monitor-5")
METRICS = "src/bento/metrics.py"


@pytest.fixture(scope="module")
def solved(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A lab in which some exercises were solved, one was skipped, and one prediction was wrong."""
    root = tmp_path_factory.mktemp("x") / "läb"
    with Lab.open(root, learner="Ada O'Neil") as lab:
        for name in DONE:
            solution = catalogue()[name].solution
            assert solution
            solution(lab, exercise)
            exercise(lab, name).check()
        exercise(lab, "code-3").skip()
        exercise(lab, "plan-1").predict(999)
        exercise(lab, "plan-1").check()
    own = root / "notebooks"
    own.mkdir()
    (own / "01-plan.ipynb").write_text(json.dumps({"cells": []}), "utf-8")
    yield root
    Lab.open(root).clean()


@pytest.fixture
def lab(solved: Path, tmp_path: Path) -> Path:
    """A copy to tamper with; not opened, so it has the same identity."""
    return Path(shutil.copytree(solved, tmp_path / "lab"))


def graded(tmp_path: Path, **labs: Path) -> dict[str, Grade]:
    """What these labs are worth, or archives, by learner."""
    folder = tmp_path / "hand-ins"
    folder.mkdir(exist_ok=True)
    for name, given in labs.items():
        hand_in(given, folder / f"{name}.zip") if given.is_dir() else shutil.copy(
            given, folder / f"{name}.zip"
        )
    return {each.learner: each for each in grade(folder, tmp_path / "out")}


def fenced_in(tmp_path: Path, process: psutil.Process) -> bool:
    """Whether a process belongs to a fence in which something of this test is looked at."""
    try:
        return fence.MARK in process.environ() and str(tmp_path) in " ".join(process.cmdline())
    except (psutil.Error, OSError):
        return False


def points(one: Grade) -> dict[str, float]:
    return {mark.exercise: mark.points for mark in one.marks if mark.points}


def mark(one: Grade, name: str) -> Mark:
    return next(each for each in one.marks if each.exercise == name)


def full() -> dict[str, float]:
    """All that was solved; who has a name has one exercise more."""
    return {name: float(catalogue()[name].points) for name in (*DONE, "welcome-2")}


def rewritten(archive: Path, change: Callable[[dict[str, bytes]], object], target: Path) -> Path:
    """An archive with other files in it, and the manifest that it had."""
    with zipfile.ZipFile(archive) as old:
        files = {name: old.read(name) for name in old.namelist()}
    change(files)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for name, content in files.items():
            new.writestr(name, content)
    return target


def sql(root: Path, *statements: str) -> None:
    with closing(sqlite3.connect(root / "lab.db")) as db:
        for statement in statements:
            db.execute(statement)
        db.commit()


def with_metrics(root: Path, code: str) -> Path:
    """The lab, with this code where the check of monitor-5 runs it."""
    shop = root / "shop"
    git(shop, "switch", "--quiet", "learn/metric")
    (shop / METRICS).write_text(code, "utf-8")
    git(shop, "commit", "--quiet", "-am", "feat: mine", env=identity("Eve"))
    git(shop, "switch", "--quiet", "main")
    return root


# ---- what is handed in
def test_a_hand_in_is_small_and_holds_the_newest_records_and_no_secret(solved: Path, tmp_path: Path) -> None:
    (solved / "run" / "postgres-password").write_text("geheim")
    with Lab.open(solved) as lab:  # still open: its last record is in SQLite's log alone
        lab.store.event("welcome", "complaint", "complaint:x", "The newest.")
        path = hand_in(lab, tmp_path / "a.zip")
    (solved / "run" / "postgres-password").unlink()
    assert path.stat().st_size < pack.MOST_BYTES / 10
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
        archive.extract("lab.db", tmp_path)
        text = archive.read("lab.toml").decode()
        manifest = msgspec.json.decode(archive.read("manifest.json"), type=HandIn)
    with closing(sqlite3.connect(tmp_path / "lab.db")) as db:
        assert db.execute("select message from events order by id desc limit 1").fetchone() == (
            "The newest.",
        )
    assert {"lab.db", "shop.bundle", "origin.bundle", "notebooks/01-plan.ipynb"} <= names
    assert not [name for name in names if name.startswith(("run/", "production/")) or "password" in name]
    assert 'home = ""' in text
    assert manifest.learner == "Ada O'Neil"
    assert manifest.files.keys() == names - {"manifest.json"}


def test_what_is_not_committed_comes_along_and_the_shop_stays_as_it_was(lab: Path, tmp_path: Path) -> None:
    (lab / "shop" / "HALF.md").write_text("half done", "utf-8")
    before = git(lab / "shop", "for-each-ref"), git(lab / "shop", "status", "--porcelain")
    path = hand_in(lab, tmp_path / "a.zip")
    assert (git(lab / "shop", "for-each-ref"), git(lab / "shop", "status", "--porcelain")) == before
    with zipfile.ZipFile(path) as archive:
        archive.extract("shop.bundle", tmp_path)
    git(tmp_path, "init", "--quiet", "--bare", "again")
    git(tmp_path / "again", "fetch", "--quiet", str(tmp_path / "shop.bundle"), "+refs/*:refs/*")
    assert git(tmp_path / "again", "show", f"{pack.UNCOMMITTED}:HALF.md") == "half done"


def test_outputs_without_end_are_left_out_and_that_is_said(lab: Path, tmp_path: Path) -> None:
    noise = "".join(chr(33 + n * n % 93) for n in range(50_000)) * 40
    cell = {"cell_type": "code", "metadata": {}, "outputs": [{"text": noise}], "source": ""}
    page = {"cells": [cell | {"id": str(n)} for n in range(50)]}
    (lab / "notebooks" / "02-code.ipynb").write_text(json.dumps(page), "utf-8")
    (lab / "shop" / "noise.bin").write_bytes(os.urandom(6_000_000))
    one = graded(tmp_path, ada=lab)["ada"]
    assert (tmp_path / "hand-ins" / "ada.zip").stat().st_size < pack.MOST_BYTES
    assert any("02-code.ipynb: without outputs" in remark for remark in one.remarks)
    assert any("without what is not committed" in remark for remark in one.remarks)
    assert points(one) == full()


def test_where_there_is_no_lab_or_no_hand_in_that_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotALab):
        hand_in(tmp_path)
    with pytest.raises(BadInput, match="holds no hand-in"):
        grade(tmp_path)
    with pytest.raises(BadInput, match="There is no folder"):
        grade(tmp_path / "nowhere")


# ---- what it is worth
def test_every_exercise_is_checked_again_and_nothing_is_left(solved: Path, tmp_path: Path) -> None:
    one = graded(tmp_path, ada=solved)["ada"]
    assert points(one) == full()
    assert one.remarks == []
    assert (mark(one, "code-3").state, mark(one, "plan-1").state) == ("skipped", "told")
    assert mark(one, "plan-2").state == "not yet"
    assert [each.exercise for each in one.marks] == list(catalogue())
    assert json.loads((tmp_path / "out" / "grades.json").read_text("utf-8"))[0]["learner"] == "ada"
    assert not [each for each in psutil.process_iter() if fenced_in(tmp_path, each)]


def test_what_its_events_hold_counts_when_the_state_has_moved_on(lab: Path, tmp_path: Path) -> None:
    git(lab / "shop", "branch", "-D", "learn/greeting")
    one = graded(tmp_path, ada=lab)["ada"]
    assert points(one) == full()
    assert one.remarks == ["not to be seen any more, and counted as its events hold it: code-1"]


# ---- tampering
RIGHT = '{"exercise":"plan-2","state":"right","seen":"Done.","t":1.0}'
TOLD_ANEW = "update records set data = replace(data, '\"told\"', '\"right\"') where key = 'plan-1'"
SAID_ANEW = """insert into events (t, phase, kind, subject, message, who, why, data)
    select t, phase, kind, subject, message, who, why, '{"value": 13}' from events
    where subject = 'exercise:plan-1' and kind = 'exercise.said'"""
EARLIER = """insert into events (t, phase, kind, subject, message, who, why, data)
    select t - 100, phase, kind, 'exercise:plan-2', message, who, why, data from events
    where subject = 'exercise:plan-3' and kind = 'exercise.checked'"""
LIVE = EARLIER.replace("plan-2", "deploy-2").replace("t - 100", "t + 1000")


@pytest.mark.parametrize(
    ("statements", "named"),
    [
        (
            [f"insert into records values ('Progress', 'plan-2', 1.0, '{RIGHT}')"],
            "plan-2: its record says right",
        ),
        ([TOLD_ANEW, SAID_ANEW], "plan-1: its record says right, but its events say that it was told"),
        ([EARLIER], "plan-2: the event that says so is out of order"),
        ([LIVE], "deploy-2: its record says right, but there was no production"),
    ],
)
def test_a_verdict_that_was_written_by_hand_is_named_and_gives_nothing(
    lab: Path, tmp_path: Path, statements: list[str], named: str
) -> None:
    sql(lab, *statements)
    one = graded(tmp_path, eve=lab)["eve"]
    assert points(one) == full()
    assert [remark for remark in one.remarks if named in remark and "no points" in remark]


def test_points_in_notebooks_and_checks_brought_along_change_nothing(lab: Path, tmp_path: Path) -> None:
    cell = {"cell_type": "code", "metadata": {"nbgrader": {"grade_id": "test-plan-3", "points": 99}}}
    (lab / "notebooks" / "01-plan.ipynb").write_text(json.dumps({"cells": [cell]}), "utf-8")
    good = hand_in(lab, tmp_path / "good.zip")
    check = {"devops_lab/exercises/planning.py": b"def allergens(*_): return 'right'"}
    one = graded(tmp_path, eve=rewritten(good, lambda files: files.update(check), tmp_path / "e.zip"))["eve"]
    assert points(one) == full()
    assert any("gives 99 points for plan-3; 2 count" in remark for remark in one.remarks)
    assert any("no part of a hand-in" in r and "exercises/planning.py" in r for r in one.remarks)


def test_a_record_that_was_changed_after_it_was_packed_is_named(lab: Path, tmp_path: Path) -> None:
    good = hand_in(lab, tmp_path / "good.zip")
    sql(lab, f"insert into records values ('Progress', 'plan-2', 1.0, '{RIGHT}')")
    changed = (lab / "lab.db").read_bytes()
    one = graded(tmp_path, eve=rewritten(good, lambda f: f.update({"lab.db": changed}), tmp_path / "e.zip"))[
        "eve"
    ]
    assert "lab.db was changed after it was packed" in one.remarks


def test_a_neighbours_record_is_named_on_both_sides_and_only_own_work_counts(
    solved: Path, tmp_path: Path
) -> None:
    with Lab.open(shutil.copytree(solved, tmp_path / "copied")) as copied:  # it gets an identity of its own
        exercise(copied, "welcome-4").answer(git(copied.world.shop, "rev-list", "--max-parents=0", "main"))
        exercise(copied, "welcome-4").check()
    both = graded(tmp_path, ada=solved, bob=copied.root)
    assert points(both["ada"]) == {}
    assert points(both["bob"]) == {"welcome-4": 1.0}
    assert any("events are also those of bob" in remark for remark in both["ada"].remarks)
    same = graded(tmp_path, bob=solved)
    assert any("has the identity of ada's" in remark for remark in same["bob"].remarks)


# ---- hostile
BOMB = """import os, time
for _ in range(500):
    if os.fork() == 0:
        time.sleep(20)
        os._exit(0)
"""
KILL = "import os\nos.kill(-1, 9)\n"
REMOVE = """import os, pathlib, shutil
shutil.rmtree(os.environ['DEVOPS_LAB_DIR'], ignore_errors=True) if 'DEVOPS_LAB_DIR' in os.environ else None
for path in {victims!r}:
    try:
        os.remove(path)
    except OSError:
        pass
shutil.rmtree(pathlib.Path.home() / 'lab', ignore_errors=True)
"""
AWAY = "import socket\nsocket.create_connection(('{}', {}), 3)\nprint('# TYPE bento_tips_total counter')"


@pytest.mark.parametrize(
    ("code", "named"),
    [
        ("while True:\n    pass\n", "took more than"),
        (BOMB, "processes"),
        (KILL, "monitor-5"),
        ("print('x' * 100_000_000)\n", ""),
        ("hoard = ['x' * 1000 for _ in range(10_000_000)]\n", ""),
        ("open('large', 'wb').write(b'x' * 500_000_000)\n", ""),
    ],
    ids=["loop", "processes", "kill", "output", "memory", "file"],
)
def test_code_that_means_harm_costs_its_own_points_alone(
    lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, named: str
) -> None:
    monkeypatch.setattr(grading, "CODE_SECONDS", 12.0)
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
    try:
        sql(
            lab,
            "delete from records where key = 'monitor-5'",
            "delete from events where subject like '%monitor-5'",
        )
        one = graded(tmp_path, eve=with_metrics(lab, code))["eve"]
        assert points(one) == {name: most for name, most in full().items() if name != "monitor-5"}
        assert mark(one, "monitor-5").state in ("not yet", "could not check")
        assert not named or any(named in remark for remark in one.remarks)
        assert bystander.poll() is None
    finally:
        bystander.send_signal(signal.SIGKILL)
        bystander.wait()


def test_what_deletes_files_deletes_none(lab: Path, tmp_path: Path) -> None:
    victims = [tmp_path / "victim", tmp_path / "hand-ins" / "eve.zip"]
    victims[0].touch()
    one = graded(tmp_path, eve=with_metrics(lab, REMOVE.format(victims=[*map(str, victims)])))["eve"]
    assert all(path.exists() for path in victims)
    assert points(one) == full()  # by its events: it was right once


def zip_bomb(files: dict[str, bytes]) -> None:
    files["notebooks/09-bomb.ipynb"] = bytes(unpack.MOST_FILE_BYTES + 1)


def many(files: dict[str, bytes]) -> None:
    files.update({f"registry/{n}": b"" for n in range(unpack.MOST_FILES + 1)})


def climbing(files: dict[str, bytes]) -> None:
    files.update({"../../climbed": b"x", "/tmp/absolute-hand-in": b"x", "registry/../../c": b"x"})


def without_git(files: dict[str, bytes]) -> None:
    del files["shop.bundle"], files["origin.bundle"]


def older(files: dict[str, bytes]) -> None:
    files["manifest.json"] = files["manifest.json"].replace(b'"format":1', b'"format":0')


def rubbish(files: dict[str, bytes]) -> None:
    files["lab.db"] = b"SQLite format 3\0" + b"rubbish" * 1000


def bundled(files: dict[str, bytes]) -> None:
    files["shop.bundle"] = files["shop.bundle"][:-2000]


@pytest.mark.parametrize(
    ("change", "named", "kept"),
    [
        (zip_bomb, "unpacking was ended", full()),
        (many, "more than 2000 files", full()),
        (climbing, "leads out of the hand-in: refused", full()),
        (without_git, "shop can't be read: it is not in the hand-in", full()),
        (older, "its format is 0", full()),
        (rubbish, "lab.db is damaged", full() | {"code-3": 1.0}),
        (bundled, "shop can't be read", full()),
    ],
    ids=["bomb", "many", "climbing", "no git", "older", "store", "bundle"],
)
def test_a_poor_archive_is_graded_as_far_as_it_goes(
    solved: Path,
    tmp_path: Path,
    change: Callable[[dict[str, bytes]], object],
    named: str,
    kept: dict[str, float],
) -> None:
    good = hand_in(solved, tmp_path / "good.zip")
    one = graded(tmp_path, eve=rewritten(good, change, tmp_path / "e.zip"))["eve"]
    assert any(named in remark for remark in one.remarks), one.remarks
    assert points(one) == kept
    assert not (tmp_path / "climbed").exists()
    assert not Path("/tmp/absolute-hand-in").exists()


def test_links_cut_off_archives_and_what_is_none_never_stop_the_others(solved: Path, tmp_path: Path) -> None:
    good = hand_in(solved, tmp_path / "good.zip")
    linked, cut, none = (tmp_path / name for name in ("linked.zip", "cut.zip", "none.zip"))
    shutil.copy(good, linked)
    with zipfile.ZipFile(linked, "a") as archive:
        link = zipfile.ZipInfo("registry/link")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    cut.write_bytes(good.read_bytes()[: good.stat().st_size * 9 // 10])
    none.write_bytes(b"I did it all, honestly.")
    (tmp_path / "hand-ins").mkdir()
    (tmp_path / "hand-ins" / "away.zip").symlink_to(good)
    found = graded(tmp_path, linked=linked, cut=cut, none=none)
    said = {name: " / ".join(one.remarks) for name, one in found.items()}
    assert "'registry/link' is no plain file: refused" in said["linked"]
    assert "it was cut off" in said["cut"]
    assert mark(found["cut"], "plan-3").state == "right"
    assert "it is no zip archive" in said["none"]
    assert "it is no plain file: refused" in said["away"]


def test_of_two_hand_ins_of_one_learner_the_newer_counts_and_that_is_said(lab: Path, tmp_path: Path) -> None:
    first = hand_in(lab, tmp_path / "first.zip")
    with Lab.open(lab) as opened:
        opened.store.event("welcome", "complaint", "complaint:x", "Something later.")
    found = graded(tmp_path, **{"ada (1)": first, "ada": lab})
    assert found.keys() == {"ada"}
    assert "ada is newer, by what happened in it; ada (1) is left aside" in " ".join(found["ada"].remarks)
    assert points(found["ada"]) == full()


def test_uploads_are_known_by_what_the_platform_calls_them(tmp_path: Path) -> None:
    for name in (
        "Ann Lee_123_assignsubmission_file/lab.zip",
        "Ann Lee_123_assignsubmission_file/old.zip",
        "Bo_7_assignsubmission_file_bo-lab.zip",
        "caratho_LATE_1234_56789_my_lab.zip",
        "dan_o.zip",
        "group_1_2_a.zip",
        "group_1_3_b.zip",
        "eve/week-1/lab.zip",
        "__MACOSX/eve.zip",
        "eve/.trash/lab.zip",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = {name: path.name for name, path in grading.uploads(tmp_path).items()}
    assert found == {
        "Ann Lee": "lab.zip",
        "Ann Lee (1)": "old.zip",
        "Bo": "Bo_7_assignsubmission_file_bo-lab.zip",
        "caratho": "caratho_LATE_1234_56789_my_lab.zip",
        "dan_o": "dan_o.zip",
        "group_1_2_a": "group_1_2_a.zip",
        "group_1_3_b": "group_1_3_b.zip",
        "eve": "lab.zip",
    }


def test_accounts_that_differ_by_a_number_are_several_learners() -> None:
    names = ["student1", "student2", "student-2", "4711", "4712"]
    seen = grading._newest([grading.Seen(name, inside.Record()) for name in names])
    assert [one.learner for one in seen] == names


def test_a_clock_that_is_years_off_is_said_and_the_rest_is_graded(lab: Path, tmp_path: Path) -> None:
    sql(lab, f"update events set t = t + {10 * 365 * 86_400}")
    one = graded(tmp_path, ada=lab)["ada"]
    assert points(one) == full()
    assert [remark for remark in one.remarks if "days ahead" in remark]


# ---- the fence
PROBE = """import os, socket, subprocess, sys
home, outside, pid = sys.argv[1:]
def tried(what):
    try:
        what()
    except OSError:
        return False
    return True
def bound():
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()).close()
print(
    tried(lambda: open(outside, "w")),
    tried(lambda: open(home + "/in", "w")),
    tried(lambda: os.kill(int(pid), 0)),
    tried(bound),
    tried(lambda: socket.create_connection(("192.0.2.1", 9), 1)),
    sorted(os.listdir("/run")),
    subprocess.run(["mount", "-o", "remount,rw", "/"], capture_output=True).returncode != 0,
)
subprocess.Popen(["sleep", "300"], start_new_session=True)
"""


def test_nothing_gets_out_of_the_fence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = tmp_path / "probing.py"
    module.write_text(PROBE, "utf-8")
    path = {"PYTHONPATH": f"{Path(fence.__file__).parents[3]}:{tmp_path}"}
    monkeypatch.setattr(variables, "import_path", lambda: path)
    said = fence.fenced("probing", str(tmp_path / "out"), str(os.getpid()), seconds=60)
    assert said.out.decode().split() == ["False", "True", "False", "True", "False", "[]", "True"], said
    assert said.why == ""


GONE = "echo 0 > /proc/sys/user/max_user_namespaces; "


@pytest.mark.skipif(not shutil.which("unshare"), reason="needs util-linux")
@pytest.mark.parametrize(
    ("way", "before", "code", "told"),
    [
        (["-U"], "", 0, "this machine's fence lacks: no namespaces"),  # nobody, who may make none
        (["-U", "-r"], GONE, 1, "no namespaces for root"),
    ],
)
def test_where_no_fence_can_be_put_up_that_is_said_and_root_is_refused(
    solved: Path, tmp_path: Path, way: list[str], before: str, code: int, told: str
) -> None:
    if subprocess.run(["unshare", *way, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody make namespaces")
    hand_in(solved, tmp_path / "ada.zip")
    line = f"{before}exec {sys.executable} -m devops_lab classroom grade {tmp_path}"
    here, env = Path(fence.__file__).parents[3], variables.command()
    done = subprocess.run(
        ["unshare", *way, "sh", "-c", line], cwd=here, env=env, capture_output=True, text=True, check=False
    )
    assert (done.returncode, told in done.stdout + done.stderr) == (code, True), done.stderr


def test_words_of_a_hand_in_are_no_commands_to_a_terminal(solved: Path, tmp_path: Path) -> None:
    good = hand_in(solved, tmp_path / "good.zip")
    one = graded(tmp_path, eve=rewritten(good, lambda f: f.update({"x\x1b[2Jy": b""}), tmp_path / "e.zip"))[
        "eve"
    ]
    assert any("x?[2Jy" in remark for remark in one.remarks)
    assert "\x1b" not in "".join(one.remarks)


def test_an_event_that_was_taken_out_is_missed(lab: Path, tmp_path: Path) -> None:
    sql(lab, "delete from events where kind = 'exercise.skipped'", "delete from records where key = 'code-3'")
    assert "1 events were taken out of its history" in graded(tmp_path, eve=lab)["eve"].remarks


def test_what_goes_wrong_with_one_never_stops_the_others(
    solved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = grading.look_into
    monkeypatch.setattr(grading, "look_into", lambda path: real(path) if path.stem == "b" else 1 / 0)
    found = graded(tmp_path, a=solved, b=solved)
    assert "grading it failed: ZeroDivisionError" in found["a"].remarks[0]
    assert points(found["b"]) == full()
