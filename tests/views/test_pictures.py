"""Every view, drawn from realistic records and from nothing."""

from __future__ import annotations

import io
import re
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from devops_lab import views
from devops_lab.model import Analysis, EndpointFigures, Progress, TestReport
from devops_lab.phases.build import Build
from devops_lab.platform.context import LabContext
from devops_lab.platform.settings import Settings
from devops_lab.platform.store import Store
from devops_lab.views import feedback, history
from devops_lab.views.style import FLOOR, Picture
from tests.views import examples

# What a reader must find in words, whatever they can see.
FACTS = {
    "lifecycle": ["6 of 10", "plan, code, build, deploy, operate, monitor"],
    "board": ["Sprint 4: 5 of 10 points", "B-14 (blocks)", "B-15, B-9"],
    "forecast": ["within 3 sprints", "85 % within 4"],
    "modes": ["Continuous Delivery: Plan to Test", "Continuous Integration: Plan to Release"],
    "pipeline": ["8 steps", "Lead time: 1.92 s", "transpile app.ts ✔ 172 ms"],
    "pipeline_failed": ["stopped at compile score.c", "compile score.c ✘", "test ○ skipped"],
    "build": ["ab12cd34", examples.DIGEST, "48.3 kB"],
    "image": ["76.2 MB in 4 layers, built in 2.4 s", "2 base image, 1 from the cache, 1 new; 147.0 kB of it"],
    "image_log": ["Step 2/3, 1 from the cache; the last 4 of 4 lines"],
    "scorers": ["39.7 times", "C: 2.1 ms"],
    "tests": ["48 of 50 passed", "test_total_with_voucher: failed", "gate is closed"],
    "test_grid": [
        "50 tests in 9 files, 48 passed, 1 failed, 1 skipped",
        "search.py 63 %",
        "unit/test_menu: 10 in",
    ],
    "matrix": ["2 of 4", "Escaped: slow-search, wrong-total"],
    "diff": ["2 lines added, 1 removed", "src/bento/orders.py"],
    "checks": ["1 ok", "no secrets"],
    "services": ["database"],
    "git_graph": [
        "30 commits (the newest 5 of 30 shown)",
        "c3c3c3c Merge branch 'work/diet', Kim Lee (merges d4d4d4d)",
        "A merge of f1f1f1f is under way: conflict in README.md",
        "b2b2b2b [main, origin/main]",
    ],
    "now": [
        "1 of 2 replicas healthy, version 1.0.0, 1.1.0",
        "Died: r3 died: killed by signal 9",
        "■ 175 answered by 1.1.0, ● 6 answered by 1.0.0",
        "run ab12 of 07-operate, cell 4: 60 requests/s; here for 15 s, 45 s to go",
        "Alerts: memory",
    ],
    "registry": ["1.2.0, 1.1.0, 1.0.0"],
    "trail": ["deployment:2", "built from commit:ab12cd34"],
    "rollout": ["1.0.0 → 1.1.0", "done after 6 s", "9 failed", "half of the traffic"],
    "rollout_steps": ["rolling 1.0.0 → 1.1.0", "5 steps"],
    "deployments": ["1.0.0 to 1.1.0 rolling done"],
    "golden_signals": ["p95 in ms 2", "3 events marked", "97.1 MB"],
    "memory": ["r0 (1.1.0) 44.0 to 97.1 MB"],
    "scaling": ["1 to 4 replicas", "116 replica-seconds"],
    "canary": ["goes on at 5 %", "worse at 50 %", "/api/search 214 ms against 12 ms"],
    "race": ["Cheapest: by requests, 61 replica-seconds", "least waiting: always 4"],
    "loops": ["open loop: 89 of 500", "closed loop: 4 of 400", "p95 2 ms"],
    "replicas": ["1 of 3", "r3 dead 1.1.0 killed by signal 9"],
    "endpoints": ["/api/search is the slowest", "812.0 ms"],
    "suspects": [
        "121 ms at /api/search under 1.3.0",
        "/api/search under 1.2.0 118.0",
        "/api/menu under 1.3.0 –",
    ],
    "profile": ["distance (bento/search.py:41) takes 62 %"],
    "profile_flat": ["a takes 60 %"],
    "before_after": ["409.6 times"],
    "value_clock": ["1.2.0: 13", "in customers' hands: 8;"],
    "complaints": ["3 complaints", "2.4 s", "2 of them about /api/search"],
    "inbox": ["alert.firing"],
    "logs": ["70 log lines", "17 error", "newest 50"],
    "budget": [
        "-25 % of the error budget",
        "50 bad of 4000",
        "40 were allowed",
        "too fast over: fast, slow.",
    ],
    "alerts": ["1 firing, 1 resolved, 1 pending"],
    "calibration": [
        "2 of 4 numbers within a factor of two",
        "tend to guess too high. 1 of 2 choices and orders right.",
        "plan-sprints: too low by a factor of 1.25; deploy-failed: too high by more than a factor of 100",
    ],
    "doctor": ["C compiler"],
    "post_mortem": ["Incident 3: lock", "postmortems/incident-3.md", "INC-3"],
}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Picture]]:
    store = Store(tmp_path_factory.mktemp("views") / "lab.db")
    examples.fill(store)
    yield examples.pictures(store)
    store.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "lab.db")
    yield store
    store.close()


def test_every_picture_has_its_facts_listed(drawn: dict[str, Picture]) -> None:
    assert set(drawn) == set(FACTS)


@pytest.mark.parametrize("name", FACTS)
def test_says_the_key_facts_in_words(drawn: dict[str, Picture], name: str) -> None:
    picture = drawn[name]
    words = f"{picture.caption}\n{picture.alt}"
    assert picture.caption.strip()
    assert picture.alt.strip()
    assert [fact for fact in FACTS[name] if fact not in words] == []


@pytest.mark.parametrize("name", FACTS)
def test_shows_without_widget_script_or_drawing_in_html(drawn: dict[str, Picture], name: str) -> None:
    for data, _ in drawn[name].bundles():
        assert set(data) in ({"image/png", "text/plain"}, {"text/html", "text/plain"})
        html = data.get("text/html", "").removeprefix(FLOOR)
        assert not re.search(r"<(script|svg|style|img)|class=|on\w+=", html)


@pytest.mark.parametrize("name", FACTS)
def test_every_cell_has_a_colour_and_a_ground_of_its_own(drawn: dict[str, Picture], name: str) -> None:
    for style in re.findall(r'<(?:td|th|pre)\b[^>]*style="([^"]*)"', drawn[name].html):
        assert "color:#" in style
        assert "background:#" in style
    assert not re.search(r"<t[dh]>", drawn[name].html)
    assert not re.search(
        r"<th[^>]*>\s*</th>", drawn[name].html
    )  # read aloud, a column without a name says nothing


@pytest.mark.parametrize("name", FACTS)
def test_figures_are_sharp_and_small(drawn: dict[str, Picture], name: str) -> None:
    picture = drawn[name]
    if picture.png:
        width, _ = struct.unpack(">II", picture.png[16:24])
        assert width == 2 * picture.width
        assert len(picture.png) < 120_000


@pytest.mark.parametrize("name", FACTS)
def test_nothing_is_cut_off_at_the_edge(drawn: dict[str, Picture], name: str) -> None:
    if drawn[name].png:
        image = Image.open(io.BytesIO(drawn[name].png)).convert("L")
        wide, high = image.size
        for strip in ((0, 0, 2, high), (wide - 2, 0, wide, high), (0, 0, wide, 2), (0, high - 2, wide, high)):
            assert min(image.crop(strip).tobytes()) > 240, f"ink in the strip {strip}"


def test_all_views_can_have_nothing_to_show(store: Store) -> None:
    for name, draw in examples.empties(store).items():
        picture = draw()
        assert "Nothing yet" in picture.html, name
        assert picture.alt.startswith("Nothing yet"), name
        assert picture.caption, name


def test_a_lab_where_nothing_happened_has_an_unlit_loop(store: Store) -> None:
    picture = views.lifecycle(store)
    assert "0 of 10" in picture.caption
    assert picture.png


def test_the_loop_reads_events_and_exercises_from_the_store(store: Store) -> None:
    store.event("build", "build.started", "commit:1")
    store.event("test", "pipeline.failed", "commit:1")
    store.event("plan", "plan.chosen", "sprint:1")
    assert "Done: plan." in views.lifecycle(store).alt


def test_the_loop_tells_the_reader_s_points_from_what_the_lab_did(store: Store) -> None:
    store.put(Progress("plan-1", "right", "", 1.0), Progress("plan-2", "skipped", "", 1.0))
    store.put(Progress("code-1", "told", "", 1.0), Progress("quiz-plan", "right", "", 1.0))
    picture = views.lifecycle(store, {"plan-1": 1, "plan-2": 3, "code-1": 2})
    assert "1 of 6 points; ◇ 3 done by the lab" in picture.caption


def test_text_from_records_is_escaped(drawn: dict[str, Picture]) -> None:
    assert "<old>" not in drawn["board"].html
    assert "&lt;old&gt;" in drawn["board"].html
    assert "&lt;every&gt;" in drawn["diff"].html
    assert "<go through>" not in drawn["complaints"].html


def test_a_rollout_without_customers_still_shows_its_steps(store: Store) -> None:
    store.put(examples.DEPLOYMENT)
    picture = views.rollout(store)
    assert "0 requests" in picture.caption
    assert "drain and stop the old" in picture.html


def test_a_refused_rollout_tells_its_error(store: Store) -> None:
    refused = replace(examples.DEPLOYMENT, state="refused", error="/readyz answered 503")
    assert "/readyz answered 503" in views.rollout(store, refused).html


def test_a_stale_metric_leaves_a_gap_not_a_zero(store: Store) -> None:
    from devops_lab.views.signals import gather

    store.add_samples([(examples.T0 + n, "p95_ms", "r1", "1", "", 5.0) for n in (0, 1, 8)])
    assert gather(store, "p95_ms", (examples.T0, examples.T0 + 9)) == [(0, 5.0), (1, 5.0), (8, 5.0)]


def test_percentiles_are_of_what_all_replicas_counted_together(store: Store) -> None:
    from devops_lab.views.signals import _waits

    t, key = examples.T0, ("1", "")
    busy, idle = (t, "took_le_0.005", "r1", *key, 97.0), (t, "took_le_0.5", "r2", *key, 3.0)
    store.add_samples([busy, idle, (t + 3, "took_le_0.5", "r2", *key, 3.0)])
    p95 = _waits(store, (t, t + 9))["p95"]
    assert [at for at, _ in p95] == [0, 3]  # a second without answers leaves a gap
    assert p95[0][1] < 5  # three slow answers of a hundred, though all that one replica gave
    assert 250 < p95[1][1] < 500
    assert 250 < _waits(store, (t, t + 1000))["p99"][0][1] < 500


def test_samples_of_one_endpoint_are_not_those_of_all(store: Store) -> None:
    from devops_lab.views.signals import gather

    rows = [
        (examples.T0, "p95_ms", "r1", "1", endpoint, value) for endpoint, value in (("", 5.0), ("/a", 9.0))
    ]
    store.add_samples(rows)
    window = (examples.T0, examples.T0 + 1)
    assert gather(store, "p95_ms", window) == [(0, 5.0)]
    assert gather(store, "p95_ms", window, endpoint="/a") == [(0, 9.0)]


def test_endpoints_takes_the_customers_rows_in_seconds() -> None:
    row = EndpointFigures("/", "1.0.0", 50, 5, 10.0, 0.1, 0.25, 0.3, examples.T0)
    picture = views.endpoints([row])
    assert "/ (1.0.0) is the slowest: p95 250.0 ms" in picture.caption
    assert "1.00" in picture.html  # 10 requests a second, one in ten failed


def test_endpoints_tells_errors_and_what_was_not_measured(drawn: dict[str, Picture]) -> None:
    assert "✘ 0.50" in drawn["endpoints"].html
    assert "/api/orders p95 – ms" in drawn["endpoints"].alt


def test_an_unknown_suite_is_shown_too() -> None:
    case = replace(examples.report().cases[0], suite="smoke")
    report = TestReport("c", "d", [case], 10.0, 0.1, examples.T0)
    assert "smoke" in views.tests(report).html


def test_a_trail_with_a_circle_ends() -> None:
    picture = views.trail([("a", "from", "b", 1.0), ("b", "from", "a", 1.0)])
    assert "see above" in picture.alt


def test_in_a_trail_each_thing_stands_below_all_that_it_comes_from() -> None:
    edges, depths = history._layers(examples.TRAIL)
    assert all(depths[parent] > depths[child] for child, parent in edges)
    assert len(edges) == len(examples.TRAIL)
    many = [*examples.TRAIL, *(("commit:ab12cd34", "merges", f"commit:{n}", 1.0) for n in range(20))]
    _, depths = history._layers(many)
    assert "and more:17 others@5" in depths


def test_no_line_of_the_graph_runs_through_a_commit_of_another_branch() -> None:
    commits = [*history._half_done(examples.GRAPH), *examples.GRAPH.commits]
    spots = history._lanes(commits, examples.GRAPH)
    assert spots == {
        "": (0, 0), "f1" * 20: (1, 1), "b2" * 20: (0, 2), "c3" * 20: (0, 3), "d4" * 20: (2, 4),
        "a1" * 20: (0, 5),
    }  # fmt: skip


def test_importing_views_is_light() -> None:
    heavy = "matplotlib, PIL, ipywidgets, IPython, jupyter_core"
    code = f"import sys, devops_lab.views; print([m for m in '{heavy}'.split(', ') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_canary_that_nobody_came_to_see(store: Store) -> None:
    store.put(Analysis(3, 10, 0.0, "1.1.0", "1.0.0", "inconclusive", []))
    picture = views.canary(store)
    assert "1.1.0 as a canary of 1.0.0: inconclusive at 10 %" in picture.caption
    assert picture.png


def test_a_flame_graph_begins_with_the_shops_own_call_and_ends_with_the_guilty_function() -> None:
    outer = "Thread._bootstrap (threading.py:9);WorkerThread.run (anyio/_backends/_asyncio.py:1);"
    stacks = {
        outer + "find (bento/app.py:3);rank (bento/search.py:9);distance (bento/search.py:2)": 60,
        outer + "find (bento/app.py:3);rank (bento/search.py:9)": 20,
        "main (bento/__main__.py:9);BaseEventLoop.run_forever (asyncio/base_events.py:5)": 20,
    }
    flames = feedback._flames(feedback._without_plumbing(stacks))
    flames.sort(key=lambda flame: (flame.depth, flame.left))
    assert [(f.name.split(" ")[0], f.depth, f.left, f.wide) for f in flames] == [
        ("find", 0, 0.0, 80.0),
        ("BaseEventLoop.run_forever", 0, 80.0, 20.0),
        ("rank", 1, 0.0, 80.0),
        ("distance", 2, 0.0, 60.0),
    ]


def test_an_image_that_was_recorded_says_so_first(tmp_path: Path) -> None:
    """Without an engine, Build shows a real build of another machine, and never as if it were of this one."""
    new, again, changed = Build(
        LabContext(tmp_path, Settings(), Store(tmp_path / "lab.db"))
    ).recorded_images()
    assert (again.id == new.id, again.seconds < new.seconds, changed.id == new.id) == (True, True, False)
    fresh = {layer.digest for layer in changed.layers} - {layer.digest for layer in new.layers}
    assert len(fresh) == 1
    seen = views.image(changed, "No Docker engine answers.")
    assert seen.caption.startswith("RECORDED on another machine, ")
    assert "RECORDED" not in views.image(changed).caption
