"""Operate: complaints, causes, scaling and notifications, from what was measured."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from devops_lab.errors import BadInput, MissingTool
from devops_lab.model import Behaviour, Complaint, Pool, Profile, Replica, Request, ScalingPolicy, StepLimit
from devops_lab.phases.deploy import Deploy
from devops_lab.phases.operate import VOICES, Operate, complaint_text
from devops_lab.platform.agent.autoscaler import Memory, autoscale_step, desired_replicas, limited, stabilised
from devops_lab.platform.context import LabContext, exclusive
from devops_lab.platform.monitoring.notify import notify
from devops_lab.platform.settings import Settings
from devops_lab.platform.store import Store
from devops_lab.production.diagnosis import explain, parse
from tests.patience import until
from tests.phases.production import production

NOW = 1_000_000.0


@pytest.fixture
def world(tmp_path: Path) -> Iterator[LabContext]:
    """A lab's memory without a production."""
    (tmp_path / "run").mkdir()
    made = LabContext(tmp_path, Settings(), Store(tmp_path / "lab.db"))
    yield made
    made.store.close()


# ---- customers
def outcome(
    session: str,
    seconds: float = 0.01,
    status: int = 200,
    endpoint: str = "/api/search",
    release: str = "1.0.0",
    t: float = NOW,
    run: str = "r1",
) -> Request:
    return Request(t, endpoint, status, seconds, release, run, session)


def test_who_waits_long_or_gets_an_error_complains_worst_first(world: LabContext) -> None:
    world.store.add_requests(
        [
            outcome("patient", 0.4),
            outcome("slow", 0.9),
            outcome("slow", 1.8),
            outcome("slower", 2.5, endpoint="/api/menu"),
            outcome("error", 0.1, 500, "/api/orders"),
            outcome("elsewhere", 9.0, run="r2"),
        ]
    )
    found = Operate(world).complaints("r1")
    assert [c.session for c in found] == ["error", "slower", "slow"]
    assert [c.waited_seconds for c in found] == [0.1, 2.5, 1.8]
    assert "1.8 s" in found[2].text
    assert "error 500" in found[0].text
    assert Operate(world).complaints("r1") == found
    assert len(world.store.events(kind="complaint")) == len(world.store.all(Complaint)) == 3
    assert world.store.trail(f"complaint:{found[2].key}")[0][1:3] == ("about", "release:1.0.0")
    assert Operate(world).complaints("r1", patience_seconds=5, limit=1) == found[:1]


def test_a_fast_shop_has_no_complaints(world: LabContext) -> None:
    world.store.add_requests([outcome("a"), outcome("b", 0.5)])
    assert Operate(world).complaints() == []


def test_complaints_are_bounded(world: LabContext) -> None:
    world.store.add_requests([outcome(f"s{n}", 1.0 + n / 100) for n in range(100)])
    found = Operate(world).complaints()
    assert [c.session for c in found] == [f"s{n}" for n in range(99, 91, -1)]


def test_no_answer_is_told_as_such() -> None:
    assert "no answer at all after 3.0 s" in complaint_text(outcome("x", 3.0, 0))


def test_each_customer_has_a_voice_and_keeps_it() -> None:
    texts = {session: complaint_text(outcome(session, 2.4)) for session in map(str, range(60))}
    assert all("searched for a lunch box and waited 2.4 s" in text for text in texts.values())
    assert len(set(texts.values())) == len(VOICES)
    assert all(complaint_text(outcome(session, 2.4)) == text for session, text in texts.items())


def test_the_slowest_endpoint_and_since_which_release(world: LabContext) -> None:
    world.store.add_requests(
        [outcome("a", 0.01, t=NOW + n) for n in range(10)]
        + [outcome("a", 1.0, release="1.1.0", t=NOW + 20 + n) for n in range(5)]
        + [outcome("a", 0.02, endpoint="/", release="1.1.0", t=NOW + 20 + n) for n in range(5)]
    )
    rows = Operate(world).slowest()
    assert [(r.endpoint, r.release) for r in rows] == [
        ("/api/search", "1.1.0"),
        ("/", "1.1.0"),
        ("/api/search", "1.0.0"),
    ]
    assert (rows[0].p95, rows[0].requests, rows[0].first_seen, rows[0].rate) == (1.0, 5, NOW + 20, 1.25)
    assert [(r.endpoint, r.requests) for r in Operate(world).slowest(by_release=False)] == [
        ("/api/search", 15),
        ("/", 5),
    ]
    assert Operate(world).slowest(since=NOW + 100) == []


def test_a_day_is_checked(world: LabContext) -> None:
    with pytest.raises(BadInput, match="0 < low"):
        Operate(world).day(peak=1, low=2)


# ---- the cause
RAW = """main (bento/__main__.py:3);find (bento/app.py:40);rank (bento/search.py:9);compare (difflib.py:3) 60
main (bento/__main__.py:3);find (bento/app.py:40) 30
main (bento/__main__.py:3);run (uvicorn/server.py:1) 10
"""


def test_the_cause_is_the_innermost_function_of_the_shop() -> None:
    samples, functions, application, stacks, waiting = parse(RAW)
    assert samples == 100
    assert functions["compare (difflib.py:3)"] == 0.6
    assert next(iter(application.items())) == ("rank (bento/search.py:9)", 0.6)
    assert len(stacks) == 3
    assert waiting == 0
    found = Profile("r1", "1.0.0", NOW, 2.0, samples, functions, application, stacks)
    assert found.cause == "rank (bento/search.py:9)"


@pytest.mark.parametrize(
    ("leaf", "waits"),
    [
        ("Condition.wait (threading.py:295)", True),
        ("wait (/usr/lib/python3.12/threading.py:355)", True),
        ("EpollSelector.select (selectors.py:451)", True),
        ("KqueueSelector.select (selectors.py:566)", True),
        ("_worker (concurrent/futures/thread.py:69)", True),
        ("distance (bento/search.py:26)", False),
        ("await_order (bento/orders.py:3)", False),
        ("select (bento/database.py:9)", False),
        ("Thread.run (threading.py:975)", False),
    ],
)
def test_a_thread_that_waits_takes_no_time(leaf: str, waits: bool) -> None:
    samples, functions, application, stacks, waiting = parse(f"serve (bento/server.py:5);{leaf} 7\n")
    assert (samples, waiting) == ((0, 7) if waits else (7, 0))
    assert (functions == application == stacks == {}) if waits else functions == {leaf: 1.0}


def test_an_idle_replica_has_no_cause() -> None:
    assert Profile("r1", "1.0.0", NOW, 2.0, *parse("")).cause == ""


def test_a_refused_look_says_what_to_do() -> None:
    replica = Replica("r1", "p", "1.0.0", "127.0.0.1", 1, 1)
    error = explain("Error: Permission Denied: Try running again with elevated permissions", replica)
    assert isinstance(error, MissingTool)
    assert "ptrace" in str(error)
    assert not isinstance(explain("Error: No such process", replica), MissingTool)


def test_nobody_to_look_into(world: LabContext) -> None:
    with pytest.raises(BadInput, match="Nothing runs"):
        Operate(world).profile()
    world.store.put(Replica("r1", "p", "1.0.0", "127.0.0.1", 1, 1, "", "healthy"))
    with pytest.raises(BadInput, match="no replica 'r9'"):
        Operate(world).profile("r9")


def test_who_can_not_look_is_told_why(world: LabContext) -> None:
    far = Replica("r1", "p", "1.0.0", "10.0.0.7", 1, 0, "", "healthy", node="n2")
    world.store.put(far)
    with pytest.raises(MissingTool, match="there are only r1 on n2"):
        Operate(world).profile()
    assert "r1 on n2" in Operate(world).why_no_profile()
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    world.store.put(replace(far, pid=gone.pid))
    assert "py-spy could not look into replica r1" in Operate(world).why_no_profile()
    able = replace(world.engine.capabilities(), why_not={"profiles": "It is forbidden."})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(world.engine), "capabilities", lambda _: able)
        assert Operate(world).why_no_profile() == "It is forbidden."


def test_a_live_replica_shows_its_slow_function(tmp_path: Path) -> None:
    with production(tmp_path / "lab", "1.3.0", replicas=1) as world:
        Deploy(world).run("1.3.0")
        operate = Operate(world)
        with operate.load(15, 60, mix={"search": 1.0}) as run:
            until(lambda: world.store.requests(run=run.id), "customers")
            if reason := operate.why_no_profile():
                pytest.skip(f"this machine does not allow it: {reason}")
            found = operate.profile(seconds=1)
        assert found.samples > 0
        assert "search.py" in found.cause
        assert next(iter(found.application.values())) > 0.5
        assert world.store.get(Profile, found.key) == found


# ---- scaling
def policy(
    target: float = 10.0, low: int = 1, high: int = 6, *, tolerance: float = 0.1, **more: Behaviour
) -> ScalingPolicy:
    return ScalingPolicy("requests_per_second", target, low, high, tolerance, **more)


@pytest.mark.parametrize(
    ("values", "now", "missing", "starting", "expected"),
    [
        ([10.0, 10.0], 2, 0, 0, 2),  # at target
        ([10.9, 10.9], 2, 0, 0, 2),  # within the tolerance
        ([9.1, 9.1], 2, 0, 0, 2),
        ([11.5, 11.5], 2, 0, 0, 3),  # ceil(2.3)
        ([40.0, 40.0], 2, 0, 0, 8),
        ([3.0, 3.0, 3.0], 3, 0, 0, 1),  # ceil(0.9)
        ([0.0, 0.0], 2, 0, 0, 0),
        ([20.0], 2, 1, 0, 2),  # a replica without figures counts as idle when scaling out: 20 / 2
        ([40.0], 2, 1, 0, 4),
        ([2.0], 2, 1, 0, 2),  # … and as at the target when scaling in: ceil(12 / 10)
        ([2.0, 2.0, 2.0], 4, 1, 0, 2),  # ceil((6 + 10) / 10)
        ([15.0], 2, 1, 0, 2),  # the ratio is turned around: nothing changes
        ([40.0], 2, 0, 1, 4),  # who still starts counts as idle when scaling out
        ([30.0], 3, 0, 2, 3),
        ([5.0], 2, 0, 1, 1),  # … and not at all when scaling in
        ([], 3, 3, 0, 3),  # nothing known, nothing changed
        ([30.0 * (1 / 3)] * 3, 3, 0, 0, 3),
    ],
)
def test_desired_replicas(values: list[float], now: int, missing: int, starting: int, expected: int) -> None:
    assert desired_replicas(values, now, policy(), missing, starting) == expected


@pytest.mark.parametrize(
    ("wanted", "now", "recent", "expected"),
    [
        (4, 2, [], 4),
        (4, 2, [1], 2),  # the lowest of the window of a scale-out
        (4, 2, [3, 6], 3),
        (1, 4, [], 1),
        (1, 4, [3, 2], 3),  # the highest of the window of a scale-in
        (1, 4, [6], 4),
        (2, 2, [5], 2),
    ],
)
def test_the_most_cautious_of_the_window_counts(
    wanted: int, now: int, recent: list[int], expected: int
) -> None:
    both = policy(scale_out=Behaviour(10), scale_in=Behaviour(10))
    assert stabilised(wanted, now, [(NOW - 9, n) for n in recent], NOW, both) == expected
    assert stabilised(wanted, now, [(NOW - 10, n) for n in recent], NOW, both) == wanted


@pytest.mark.parametrize(
    ("behaviour", "now", "done", "out", "down"),
    [
        (Behaviour(limits=(StepLimit("replicas", 1),)), 4, [], 5, 3),
        (Behaviour(limits=(StepLimit("percent", 50),)), 5, [], 8, 2),  # ceil(7.5), floor(2.5)
        (Behaviour(limits=(StepLimit("replicas", 2),)), 4, [(-14, 1)], 5, 1),  # 3 at the period's start
        (Behaviour(limits=(StepLimit("replicas", 2),)), 4, [(-15, 1)], 6, 2),  # an older period
        (Behaviour(limits=(StepLimit("replicas", 2),)), 4, [(-9, -2), (-3, 1)], 7, 3),
        (Behaviour(limits=(StepLimit("replicas", 1), StepLimit("percent", 50))), 4, [], 6, 2),
        (Behaviour(limits=(StepLimit("replicas", 1), StepLimit("percent", 50)), select="min"), 4, [], 5, 3),
        (Behaviour(select="disabled"), 4, [], 4, 4),
    ],
)
def test_step_limits(
    behaviour: Behaviour, now: int, done: list[tuple[float, int]], out: int, down: int
) -> None:
    both = policy(high=8, scale_out=behaviour, scale_in=behaviour)
    past = [(NOW + t, change) for t, change in done]
    assert limited(20, now, past, NOW, both) == min(out, 8)
    assert limited(0, now, past, NOW, both) == max(down, 1)


def test_kubernetes_own_defaults() -> None:
    """kubernetes.io, "Default Behavior": out by 4 replicas or 100 % in 15 s, in by 100 %."""
    assert limited(99, 1, [], NOW, policy(high=8)) == 5
    assert limited(99, 5, [], NOW, policy(high=8)) == 8
    assert limited(99, 5, [(NOW - 1, 4)], NOW, policy(high=8)) == 5
    assert limited(0, 8, [], NOW, policy()) == 1


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (policy(low=3, high=2), "between 3 and 2"),
        (policy(low=0), "between 0"),
        (policy(high=9), "and 9"),
        (policy(target=0.0), "target of 0"),
        (policy(target=float("nan")), "target of nan"),
        (policy(tolerance=1.0), "tolerance of 1"),
        (policy(scale_in=Behaviour(-1.0)), "window of -1"),
        (policy(scale_out=Behaviour(3601.0)), "window of 3601"),
        (policy(scale_out=Behaviour(limits=())), "by no step limit"),
        (policy(scale_in=Behaviour(limits=(StepLimit("replicas", 0),))), "scale-in of 0 replicas"),
        (policy(scale_in=Behaviour(limits=(StepLimit("percent", 10, 0.0),))), "in 0 s"),
        (policy(scale_out=Behaviour(select="disabled"), scale_in=Behaviour(select="disabled")), "disabled"),
        (ScalingPolicy("moon_phase", 1.0, 1, 2), "moon_phase"),  # type: ignore[arg-type]
    ],
)
def test_limits_that_contradict_each_other_are_refused(
    world: LabContext, bad: ScalingPolicy, said: str
) -> None:
    Operate(world).autoscale(policy())
    with pytest.raises(BadInput, match=said):
        Operate(world).autoscale(bad)
    assert world.store.last(ScalingPolicy) == policy()


def pretend(world: LabContext, now: float, rate: float, replicas: int) -> None:
    """Replicas that are healthy, and what the agent measured of them."""
    world.store.put(Pool("p", "1.0.0", replicas, 100))
    names = [f"r{n}" for n in range(replicas)]
    world.store.replace_all(
        Replica, [Replica(name, "p", "1.0.0", "127.0.0.1", 1, 1, "", "healthy") for name in names]
    )
    for t in (now - 0.5, now):  # one sample alone decides nothing
        world.store.add_samples((t, "requests_per_second", name, "1.0.0", "", rate) for name in names)


def step(world: LabContext, now: float, rate: float) -> int | None:
    pretend(world, now, rate, world.store.all(Pool)[0].replicas if world.store.all(Pool) else 2)
    return autoscale_step(world, now)


def test_out_at_once_and_in_after_the_window(world: LabContext) -> None:
    Operate(world).autoscale(policy(scale_in=Behaviour(5.0)))
    assert step(world, NOW, 30.0) == 6
    assert world.store.all(Pool)[0].replicas == 6
    event = world.store.events(kind="operate.scaled")[-1]
    assert (event.who, event.data["before"], event.data["after"]) == ("autoscaler", 2, 6)
    assert "30.0" in event.why
    assert Operate(world).inbox()[-1].data["about"] == "operate.scaled"
    quiet = [step(world, NOW + n, 1.0) for n in range(1, 10)]
    assert quiet[:4] == [None] * 4
    assert [n for n in quiet if n][-1] == 1
    assert world.store.all(Pool)[0].replicas == 1


def test_a_metric_that_stops_arriving_decides_nothing_and_is_told_once(world: LabContext) -> None:
    operate = Operate(world)
    operate.autoscale(policy(scale_in=Behaviour()))
    assert step(world, NOW, 10.0) is None
    assert [autoscale_step(world, NOW + n) for n in range(2, 12)] == [None] * 10  # a zero would scale in
    (told,) = world.store.events(kind="autoscaler.blind")
    assert "unknown, not zero" in told.message
    assert world.store.all(Pool)[0].replicas == 2
    assert step(world, NOW + 20, 10.0) is None  # it arrives again, and stops again
    assert autoscale_step(world, NOW + 30) is None
    assert len(world.store.events(kind="autoscaler.blind")) == 2


def test_who_set_more_than_the_policy_allows_is_brought_back(world: LabContext) -> None:
    Operate(world).autoscale(policy(high=3, scale_in=Behaviour(select="disabled")))
    world.store.put(Pool("p", "1.0.0", 5, 100))
    assert autoscale_step(world, NOW) == 3
    assert "allows 1 to 3" in world.store.events(kind="operate.scaled")[-1].why


def test_without_a_policy_or_figures_or_during_a_rollout_nothing_changes(world: LabContext) -> None:
    assert step(world, NOW, 30.0) is None  # no policy
    Operate(world).autoscale(policy())
    assert autoscale_step(world, NOW + 60) is None  # stale figures
    with exclusive(world):
        assert step(world, NOW + 61, 30.0) is None  # a rollout
    world.store.put(Pool("second", "1.1.0", 1, 5))
    assert step(world, NOW + 62, 30.0) is None  # two pools share the traffic
    world.store.remove(Pool, "second")
    assert step(world, NOW + 63, 30.0) == 6
    Operate(world).autoscale(None)
    assert step(world, NOW + 64, 30.0) is None
    assert world.store.all(Memory) == []


@pytest.mark.slow
def test_production_follows_the_customers_and_drops_nobody(
    tmp_path: Path, record_testsuite_property: Callable[[str, object], None]
) -> None:
    with production(tmp_path / "lab", "1.0.0", replicas=1) as world:
        Deploy(world).run("1.0.0")
        operate = Operate(world)
        operate.autoscale(policy(target=25.0, high=4, scale_in=Behaviour(2.0)))

        def healthy() -> int:
            return sum(r.state == "healthy" for r in world.store.all(Replica))

        peak = 4.0  # seconds after the first customer
        curve = [(0.0, 5.0), (peak, 5.0), (peak + 0.1, 90.0), (25.0, 90.0), (25.1, 10.0), (60.0, 10.0)]
        with operate.load(curve=curve) as run:
            began = world.store.events(kind="load.started", subject=f"load:{run.id}")[0].t
            until(lambda: healthy() == 4, "four replicas")
            took = time.time() - began - peak
            until(
                lambda: world.store.all(Pool)[0].replicas == len(world.store.all(Replica)) == 1,
                "one replica at night, while customers still come",
                seconds=50,
            )
            assert run.running
            summary = run.stop()
        print(f"peak starts > enough replicas serve: {took:.1f} s (bar: under 10 s)")
        record_testsuite_property("peak_to_enough_replicas_seconds", round(took, 2))
        assert summary.failed == summary.orders_lost == summary.orders_doubled == 0
        told = [event for event in operate.inbox() if not event.kind.startswith("agent")]
        assert {"deploy.started", "deploy.done", "operate.autoscale"} <= {event.kind for event in told}
        assert [event for event in told if not event.who] == []
        assert all("target 25" in event.why for event in told if event.who == "autoscaler")
        steps = [(e.data["before"], e.data["after"]) for e in world.store.events(kind="operate.scaled")]
        assert any(after == 1 for _, after in steps)


# ---- notifications
def test_an_event_arrives_once(world: LabContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DEVOPS_LAB_NOTIFY", raising=False)
    event = world.store.event(
        "deploy", "deploy.done", "deployment:1", "1.0.0 > 1.1.0", who="ada", why="lunch"
    )
    notify(world, event)
    notify(world, event)
    (told,) = Operate(world).inbox()
    assert told.data == {"event": event.id, "about": "deploy.done"}
    seen = (told.kind, told.subject, told.message, told.who, told.why)
    assert seen == ("deploy.done", "deployment:1", "1.0.0 > 1.1.0", "ada", "lunch")


@pytest.mark.parametrize(
    "address", ["json://user:secret@127.0.0.1:1/hook?token=secret", "nonsense-secret://x"]
)
def test_an_address_that_refuses_hurts_nobody(
    world: LabContext, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("DEVOPS_LAB_NOTIFY", address)
    notify(world, world.store.event("operate", "replica.died", "replica:r1", "gone"), wait_seconds=30)
    (failed,) = world.store.events(kind="notify.failed")
    assert "refused" in failed.message or "not an address" in failed.message
    assert "secret@" not in failed.message
    assert "token" not in failed.message
    assert len(Operate(world).inbox()) == 1


def test_an_address_that_never_answers_is_not_waited_for(
    world: LabContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("DEVOPS_LAB_NOTIFY", f"json://127.0.0.1:{silent.getsockname()[1]}")
        began = time.monotonic()
        notify(world, world.store.event("operate", "replica.died", "replica:r1", "gone"), wait_seconds=0.2)
        assert time.monotonic() - began < 3  # apprise itself would wait 4 s to connect and 4 s to read
        assert "no answer" in world.store.events(kind="notify.failed")[0].message


def test_an_address_that_listens_hears_of_it(world: LabContext, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hook:
        monkeypatch.setenv("DEVOPS_LAB_NOTIFY", f"json://127.0.0.1:{hook.getsockname()[1]}")
        notify(world, world.store.event("operate", "replica.died", "replica:r1", "gone"), wait_seconds=0.1)
        hook.settimeout(10)
        line, _ = hook.accept()
        with line:
            line.settimeout(10)
            heard = line.recv(65536)
            while b"replica:r1" not in heard and (more := line.recv(65536)):
                heard += more
    assert b"replica.died" in heard
