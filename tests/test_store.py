"""The store: records come back as they went in, and every filter filters."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from devops_lab.errors import NotALab
from devops_lab.model import Item, LogLine, Need, Outcome, Pool, Sprint
from devops_lab.store import Store


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


def test_samples_by_window_replica_and_endpoint(store: Store) -> None:
    rows = [(float(t), "p95_ms", "r1", "1.0.0", e, t * 1.0) for t in range(5) for e in ("", "/api/menu")]
    store.add_samples([*rows, (2.0, "p95_ms", "r2", "1.0.0", "", 9.0)])
    found = store.samples("p95_ms", since=1, until=3, replica="r1", endpoint="/api/menu")
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
    store.add_requests([Outcome(t, "/", 200, 0.01, run="a") for t in (1.0, 10.0)])
    store.add_samples([(1.0, "up", "r1", "1", "", 1.0)])
    store.event("plan", "x", "y")
    store.forget(before=5)
    assert [o.t for o in store.requests(run="a")] == [10.0]
    assert store.samples("up") == []
    assert store.events()


def test_threads_write_side_by_side(store: Store) -> None:
    def write(name: str) -> None:
        for number in range(50):
            store.event("test", "tick", f"{name}:{number}")
        store.close()

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.events(kind="tick")) == 200


def test_a_file_that_is_no_database_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "lab.db"
    path.write_text("my holiday letters, quite long ones, nothing to do with any lab" * 20)
    with pytest.raises(NotALab, match="not a lab's store"):
        Store(path)
    assert path.read_text().startswith("my holiday")


def test_an_item_keeps_its_nested_records(store: Store) -> None:
    from devops_lab.model import Progress

    store.put(Progress("plan-1", "right", "seen", 1.0))
    item = Item("B-1", "Search", "feature", 3, 6, needs=[Need("database", storage_mb=5)])
    assert item.wsjf == 2
    import msgspec

    assert msgspec.json.decode(msgspec.json.encode(item), type=Item) == item
