"""The store: records come back as they went in, and every filter filters."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from devops_lab.errors import Damaged
from devops_lab.model import Item, LogLine, Need, Pool, Request, Sprint
from devops_lab.platform.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "lab.db")


def test_records_return_as_typed_objects_and_replace_by_key(store: Store) -> None:
    store.put(Pool("blue", "1.0.0", 2, 100), Pool("green", "1.1.0", 1, 0, env={"A": "b"}))
    store.put(Pool("blue", "1.0.0", 3, 100))
    assert store.get(Pool, "blue") == Pool("blue", "1.0.0", 3, 100)
    assert store.get(Pool, "red") is None
    assert {p.name: p.env for p in store.all(Pool)} == {"blue": {}, "green": {"A": "b"}}
    store.remove(Pool, "green")
    assert [p.name for p in store.all(Pool)] == ["blue"]


def test_replace_all_touches_only_its_own_kind(store: Store) -> None:
    sprint = Sprint(1, 10, ["B-1"], 8, 20, "wsjf", 1.0)
    store.put(Pool("a", "1.0.0", 1, 100), sprint)
    store.replace_all(Pool, [Pool("b", "1.1.0", 1, 100)])
    assert [p.name for p in store.all(Pool)] == ["b"]
    assert store.last(Sprint) == sprint


def test_events_filter_by_kind_pattern_subject_and_number(store: Store) -> None:
    store.event("build", "build.started", "commit:a")
    second = store.event("build", "build.done", "commit:a", "done", who="me", why="to see", seconds=0.5)
    store.event("deploy", "deploy.done", "deployment:1")
    assert [e.kind for e in store.events(kind="build.*")] == ["build.started", "build.done"]
    assert store.events(subject="commit:a", limit=1) == [second]
    assert [e.kind for e in store.events(after_id=second.id)] == ["deploy.done"]


def test_trail_walks_up_to_the_beginning_nearest_first(store: Store) -> None:
    store.link("release:1", "made from", "artifact:x")
    store.link("artifact:x", "built from", "commit:a")
    store.link("commit:a", "serves", "item:B-1")
    store.link("release:2", "made from", "artifact:y")
    assert [row[2] for row in store.trail("release:1")] == ["artifact:x", "commit:a", "item:B-1"]


def test_a_trail_that_runs_in_a_circle_ends(store: Store) -> None:
    store.link("a", "from", "b")
    store.link("b", "from", "a")
    assert len(store.trail("a")) == 2


def test_samples_by_window_and_endpoint(store: Store) -> None:
    rows = [(float(t), "p95_ms", "r1", "1.0.0", e, t * 1.0) for t in range(5) for e in ("", "/api/menu")]
    store.add_samples([*rows, (2.0, "p95_ms", "r2", "1.0.0", "", 9.0)])
    found = store.samples("p95_ms", since=1, until=3, endpoint="/api/menu")
    assert [(t, v) for t, *_, v in found] == [(1.0, 1.0), (2.0, 2.0), (3.0, 3.0)]
    assert store.samples("cpu_percent") == []


def test_logs_by_every_filter_newest_first(store: Store) -> None:
    store.add_logs(
        [
            LogLine(1, "INFO", "order taken", "r1", "1.0.0", "/api/orders", "id-1", 201, 0.1, {"total": 5}),
            LogLine(2, "ERROR", "No such Lunch", "r2", "1.1.0", "/api/search", "id-2", 500),
            LogLine(3, "INFO", "searched", "r2", "1.1.0", "/api/search", "id-3", 200),
        ]
    )
    assert [x.t for x in store.logs()] == [3, 2, 1]
    assert store.logs(level="ERROR")[0].message == "No such Lunch"
    assert store.logs(request_id="id-1")[0].extra == {"total": 5}
    assert [x.t for x in store.logs(text="LUNCH")] == [2]
    assert [x.t for x in store.logs(release="1.1.0", endpoint="/api/search", limit=1)] == [3]


def test_forget_drops_old_measurements_and_keeps_the_records(store: Store) -> None:
    store.add_requests([Request(t, "/", 200, 0.01, run="a") for t in (1.0, 10.0)])
    store.add_samples([(1.0, "up", "r1", "1", "", 1.0)])
    store.event("plan", "plan.added", "y")
    store.forget(before=5)
    assert [o.t for o in store.requests(run="a")] == [10.0]
    assert store.samples("up") == []
    assert store.events()


def test_threads_write_side_by_side(store: Store) -> None:
    def write(name: str) -> None:
        for number in range(50):
            store.event("test", "load.gap", f"{name}:{number}")
        store.close()

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.events(kind="load.gap")) == 200


def test_a_file_that_is_no_database_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "lab.db"
    path.write_text("my holiday letters, quite long ones, nothing to do with any lab" * 20)
    with pytest.raises(Damaged, match="not a lab's store"):
        Store(path)
    assert path.read_text().startswith("my holiday")


def test_an_item_keeps_its_nested_records(store: Store) -> None:
    from devops_lab.model import Progress

    store.put(Progress("plan-1", "right", "seen", 1.0))
    item = Item("B-1", "Search", "feature", 3, 6, needs=[Need("database", storage_mb=5)])
    assert item.wsjf == 2
    import msgspec

    assert msgspec.json.decode(msgspec.json.encode(item), type=Item) == item


# ---- words of log lines
def line(t: float, message: str, request_id: str = "", **extra: object) -> LogLine:
    return LogLine(t, "INFO", message, "r1", "1.1.0", "/api/menu", request_id, extra=dict(extra))


def found(store: Store, words: str, **wanted: float) -> list[str]:
    return [hit.message for hit, _ in store.search(words, **wanted)]  # type: ignore[arg-type]


@pytest.fixture(params=["with full text", "without"])
def searched(store: Store, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Store:
    if request.param == "without":  # as where Python's SQLite was built without FTS5
        monkeypatch.setattr(Store, "has_words", lambda self: False)
    store.add_logs(
        [
            line(1, "GET /api/menu 200", "a"),
            line(2, "POST /api/orders 500", "b", error="ZeroDivisionError: division by zero"),
            line(3, "kitchen is closed"),
            line(4, "GET /api/menu 503", "c"),
        ]
    )
    store.add_requests([Request(2, "/api/orders", 500, 0.3, request_id="b"), Request(3, "/", 200, 0.1)])
    return store


def test_words_find_lines_newest_first_whatever_their_order_and_case(searched: Store) -> None:
    assert found(searched, "menu get") == ["GET /api/menu 503", "GET /api/menu 200"]
    assert found(searched, "GET /api/menu 503") == ["GET /api/menu 503"]
    assert found(searched, "zerodivisionerror") == ["POST /api/orders 500"]
    assert found(searched, "kitch*") == ["kitchen is closed"]
    assert found(searched, "menu kitchen") == []
    assert found(searched, "") == []
    assert found(searched, 'menu" OR "kitchen') == []  # words, not a language that can fail
    assert found(searched, "menu", since=2) == ["GET /api/menu 503"]
    assert found(searched, "menu", until=2) == ["GET /api/menu 200"]
    assert found(searched, "menu", limit=1) == ["GET /api/menu 503"]


def test_a_line_comes_with_what_the_customer_saw(searched: Store) -> None:
    ((_, customer),) = searched.search("orders")
    assert customer is not None
    assert (customer.request_id, customer.seconds) == ("b", 0.3)
    assert [known for _, known in searched.search("kitchen")] == [None]  # no id: nobody's request


def test_a_store_from_before_learns_its_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as before:
        before.setattr(Store, "index_words", lambda self, db: None)
        Store(tmp_path / "lab.db").add_logs([line(1, "an old line")])
    assert found(Store(tmp_path / "lab.db"), "old") == ["an old line"]


# ---- bounds
def test_the_store_stays_bounded_however_long_it_runs(store: Store) -> None:
    """Thirty hours of a lab that keeps three: once the window is full, the file's size goes up and down."""
    sizes, words = [], "a line that says something"
    for hour in range(30):
        start = hour * 3600
        for second in range(start, start + 3600, 30):
            store.add_samples([(second, "p95_ms", f"r{hour}", "1.1.0", e, 5.0) for e in ("", "/a", "/b")])
            store.add_logs([line(second, f"{words} {second}", str(second))] * 15)
            store.add_requests([Request(second, "/a", 200, 0.1, request_id=str(second))] * 15)
        store.forget(before=start - 2 * 3600, most=4000)
        store.db.execute("pragma wal_checkpoint(truncate)")
        sizes.append(store.path.stat().st_size)
    assert max(sizes) < 2 * sizes[3]
    counts = {t: store.db.execute(f"select count(*) from {t}").fetchone()[0] for t in ("logs", "requests")}
    assert counts == {"logs": 4000, "requests": 4000}
    assert {row[1] for row in store.samples("p95_ms")} == {"r27", "r28", "r29"}
    assert store.db.execute("select count(*) from series").fetchone()[0] == 9
    assert found(store, f"something {30 * 3600 - 30}") == [f"{words} {30 * 3600 - 30}"] * 15
    assert found(store, "something 30") == []  # forgotten by the index, too
    store.db.execute("insert into logs_words (logs_words) values ('integrity-check')")


def test_a_series_that_was_forgotten_may_come_again(store: Store) -> None:
    store.add_samples([(1, "up", "r1", "1.1.0", "", 1.0), (9, "up", "r2", "1.1.0", "", 1.0)])
    store.forget(before=5)
    store.add_samples([(10, "up", "r1", "1.1.0", "", 1.0), (10, "up", "r3", "1.1.0", "", 1.0)])
    assert [row[:2] for row in store.samples("up")] == [(9, "r2"), (10, "r1"), (10, "r3")]


def test_a_curve_has_as_many_points_as_a_screen_can_show(store: Store) -> None:
    rows = [
        (t + 0.001, "requests_per_second", replica, "1.1.0", endpoint, 5.0 + (t == 5000))
        for t in range(10_000)
        for replica in ("r1", "r2")
        for endpoint in ("", "/a")
    ]
    store.add_samples(rows)
    short, whole = (store.curve("requests_per_second", 0, end) for end in (100, 10_000))
    assert short == [(float(t), 10.0) for t in range(100)]
    assert len(whole) == 400
    assert max(value for _, value in whole) == pytest.approx(10 + 2 / 25)  # the mean of its 25 seconds
    assert max(v for _, v in store.curve("requests_per_second", 0, 10_000, how="max")) == 6
    assert store.curve("requests_per_second", 0, 100, "/b") == []
