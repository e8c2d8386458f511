"""Customers against a small shop of our own whose misbehaviour is known."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from aiohttp import web

from devops_lab.errors import BadInput
from devops_lab.model import LoadSummary
from devops_lab.platform.store import Store
from devops_lab.platform.traffic.load import LoadRun, LoadSpec, arrivals, check_target, percentile
from tests.patience import until


class TinyShop:
    """Answers like the shop; `trouble` tells how it misbehaves."""

    def __init__(self) -> None:
        self.trouble = ""
        self.orders: dict[str, list[str]] = {}
        self.posts: dict[str, int] = {}
        self.connections: set[object] = set()
        self.frozen_until = 0.0
        self.numbers = itertools.count(1)
        self.loop = asyncio.new_event_loop()
        self.ready = threading.Event()
        threading.Thread(target=self.serve, daemon=True).start()
        assert self.ready.wait(60)

    def serve(self) -> None:
        async def start() -> None:
            app = web.Application()
            app.router.add_post("/api/orders", self.order)
            app.router.add_get("/api/orders", self.find)
            app.router.add_get("/api/menu", self.menu)
            app.router.add_get("/{rest:.*}", self.other)
            runner = web.AppRunner(app)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            self.ready.set()

        self.loop.run_until_complete(start())
        self.loop.run_forever()

    async def menu(self, request: web.Request) -> web.Response:
        boxes = [{"id": n, "name": "Rice box", "price_cents": 100 * n} for n in range(1, 6)]
        return web.json_response({"items": boxes})

    async def other(self, request: web.Request) -> web.Response:
        self.connections.add(request.transport)
        await asyncio.sleep(max(0.0, self.frozen_until - time.monotonic()))
        headers = {"X-Release": "1.0.0"}
        if self.trouble == "redirects":
            raise web.HTTPFound("http://192.0.2.1/")
        return web.Response(text="ok", status=500 if self.trouble == "errors" else 200, headers=headers)

    async def order(self, request: web.Request) -> web.Response:
        key = request.headers["Idempotency-Key"]
        self.posts[key] = self.posts.get(key, 0) + 1
        known = self.orders.setdefault(key, [])
        if not known or self.trouble == "doubles":
            known.append(f"o{next(self.numbers)}")
        if self.trouble == "answers late" and self.posts[key] == 1:
            return web.Response(status=503)  # kept, but not confirmed
        number = known[0]
        if self.trouble == "loses":
            known.clear()
        lines = (await request.json())["lines"]
        total = sum(100 * line["item"] * line["quantity"] for line in lines)
        total += 100 * (self.trouble == "overcharges" and len(lines) > 1)
        answer = {"id": number, "total_cents": total}
        return web.json_response(answer, status=201 if self.posts[key] == 1 else 200)

    async def find(self, request: web.Request) -> web.Response:
        found = self.orders.get(request.query["key"], [])
        return web.json_response({"orders": [{"id": number} for number in found]})

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)


@pytest.fixture
def shop() -> Iterator[TinyShop]:
    tiny = TinyShop()
    yield tiny
    tiny.close()


def make_spec(shop: TinyShop, folder: Path, **changes: object) -> LoadSpec:
    given: dict[str, object] = {
        "url": shop.url,
        "run": "r1",
        "store": str(folder / "lab.db"),
        "curve": [(0.0, 80.0), (1.0, 80.0)],
    }
    return LoadSpec(**(given | changes))  # type: ignore[arg-type]


def play(spec: LoadSpec, folder: Path) -> LoadSummary:
    Store(folder / "lab.db")
    with LoadRun(spec, folder) as run:
        return run.wait()


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/",
        "http://127.0.0.1@example.org/",
        "http://localhost.example.org/",
        "https://127.0.0.1/",
        "http://203.0.113.7/",
        "http://10.77.0.3:8000/",
        "file:///etc/passwd",
        "",
    ],
)
def test_load_goes_to_nobody_else(url: str) -> None:
    with pytest.raises(BadInput, match="may not be sent"):
        check_target(url)


def test_load_goes_to_this_machine() -> None:
    check_target("http://127.0.0.1:8000")


@pytest.mark.parametrize(
    "curve",
    [
        [(0.0, 10.0)],
        [(0.0, 0.0), (5.0, 0.0)],
        [(0.0, 10.0), (0.0, 10.0)],
        [(1.0, 10.0), (2.0, 10.0)],
        [(0.0, -1.0), (2.0, 10.0)],
        [(0.0, 1e9), (2.0, 10.0)],
        [(0.0, 1.0), (1e6, 10.0)],
        [(0.0, 1900.0), (800.0, 1900.0)],
    ],
)
def test_load_is_bounded(curve: list[tuple[float, float]]) -> None:
    with pytest.raises(BadInput):
        LoadSpec("http://127.0.0.1:1", "r", "x.db", curve)


def test_unknown_kinds_of_requests_are_named() -> None:
    with pytest.raises(BadInput, match="dance"):
        LoadSpec("http://127.0.0.1:1", "r", "x.db", [(0.0, 1.0), (1.0, 1.0)], mix={"dance": 1.0})


def test_arrivals_follow_the_curve() -> None:
    spec = LoadSpec("http://127.0.0.1:1", "r", "x.db", [(0.0, 0.0), (10.0, 100.0), (20.0, 0.0)], even=True)
    moments = list(arrivals(spec, random.Random(1)))
    assert abs(len(moments) - spec.planned()) <= 2
    assert moments == sorted(moments)
    first, middle = sum(m < 2 for m in moments), sum(9 <= m < 11 for m in moments)
    assert abs(first - 20) <= 2
    assert abs(middle - 190) <= 3


def test_poisson_arrivals_have_the_rate_and_the_spread_of_a_poisson_process() -> None:
    spec = LoadSpec("http://127.0.0.1:1", "r", "x.db", [(0.0, 100.0), (100.0, 100.0)])
    moments = list(arrivals(spec, random.Random(3)))
    counts = [sum(second <= m < second + 1 for m in moments) for second in range(100)]
    mean = sum(counts) / 100
    variance = sum((c - mean) ** 2 for c in counts) / 100
    assert 95 < mean < 105
    assert 60 < variance < 150  # equal to the mean in a Poisson process, near 0 for even arrivals


def test_percentile_is_the_nearest_rank() -> None:
    values = [float(n) for n in range(1, 101)]
    assert [percentile(values, share) for share in (0.5, 0.95, 0.99, 1.0)] == [50.0, 95.0, 99.0, 100.0]
    assert percentile([], 0.95) == 0.0


def test_a_good_shop_has_no_failed_request_and_each_order_once(shop: TinyShop, tmp_path: Path) -> None:
    summary = play(make_spec(shop, tmp_path), tmp_path)
    assert summary.failed == summary.orders_lost == summary.orders_doubled == summary.orders_retried == 0
    assert summary.orders_accepted == len(shop.orders) > 0
    rows = Store(tmp_path / "lab.db").requests(run="r1")
    assert len(rows) == summary.requests > 40
    assert {"/", "/api/search", "/api/orders"} <= set(summary.by_endpoint)
    assert "1.0.0" in summary.by_release


def test_waiting_counts_from_when_a_request_was_due(shop: TinyShop, tmp_path: Path) -> None:
    spec = make_spec(shop, tmp_path, mix={"search": 1.0}, even=True, curve=[(0.0, 100.0), (1.5, 100.0)])
    Store(tmp_path / "lab.db")
    with LoadRun(spec, tmp_path) as run:
        shop.frozen_until = time.monotonic() + 0.5
        summary = run.wait()
    rows = Store(tmp_path / "lab.db").requests(run="r1")
    # a third of all requests fell due during the freeze; a closed loop would have seen a handful
    assert sum(row.seconds > 0.1 for row in rows) > 25
    assert 0.3 < summary.p95 < 1.0


def test_the_same_seed_brings_the_same_customers(shop: TinyShop, tmp_path: Path) -> None:
    mix = {"search": 1.0, "menu": 1.0, "order": 1.0}
    play(make_spec(shop, tmp_path, run="quick", mix=mix), tmp_path)
    shop.frozen_until = time.monotonic() + 1.0  # whatever the answers take
    play(make_spec(shop, tmp_path, run="slow", mix=mix), tmp_path)
    store = Store(tmp_path / "lab.db")
    quick, slow = (
        [(row.request_id.partition("-")[2], row.endpoint) for row in store.requests(run=run)]
        for run in ("quick", "slow")
    )
    assert quick == slow


def test_an_order_without_a_good_answer_is_sent_again_with_its_key(shop: TinyShop, tmp_path: Path) -> None:
    shop.trouble = "answers late"
    summary = play(make_spec(shop, tmp_path, mix={"order": 1.0}), tmp_path)
    assert summary.failed == summary.orders_lost == summary.orders_doubled == 0
    assert summary.orders_retried == summary.orders_accepted == len(shop.posts)
    assert set(shop.posts.values()) == {2}


def test_lost_orders_are_noticed(shop: TinyShop, tmp_path: Path) -> None:
    shop.trouble = "loses"
    summary = play(make_spec(shop, tmp_path, mix={"order": 1.0}), tmp_path)
    assert summary.orders_lost == summary.orders_accepted > 0


def test_doubled_orders_are_noticed(shop: TinyShop, tmp_path: Path) -> None:
    shop.trouble = "doubles"
    shop.orders = {f"r1-{number}": ["an earlier order"] for number in range(500)}
    summary = play(make_spec(shop, tmp_path, mix={"order": 1.0}), tmp_path)
    assert summary.orders_doubled == summary.orders_accepted > 0


def test_wrong_bills_are_noticed(shop: TinyShop, tmp_path: Path) -> None:
    assert play(make_spec(shop, tmp_path, mix={"order": 1.0}), tmp_path).orders_wrong == 0
    shop.trouble = "overcharges"
    summary = play(make_spec(shop, tmp_path, run="r2", mix={"order": 1.0}), tmp_path)
    assert 0 < summary.orders_wrong < summary.orders_accepted


def test_errors_and_redirects_are_failures(shop: TinyShop, tmp_path: Path) -> None:
    shop.trouble = "errors"
    summary = play(make_spec(shop, tmp_path, mix={"search": 1.0}), tmp_path)
    assert summary.failed == summary.requests > 0
    shop.trouble = "redirects"
    summary = play(make_spec(shop, tmp_path, run="r2", mix={"search": 1.0}), tmp_path)
    assert summary.failed == summary.requests > 0


def test_a_reached_limit_is_counted_not_waited_out(shop: TinyShop, tmp_path: Path) -> None:
    shop.frozen_until = time.monotonic() + 60
    spec = make_spec(shop, tmp_path, mix={"search": 1.0}, max_in_flight=10, timeout_seconds=1.0)
    summary = play(spec, tmp_path)
    assert summary.failed == summary.requests <= 20
    assert summary.not_sent > 30


@pytest.mark.parametrize("keep_alive", [True, False])
def test_keep_alive_is_on_or_off(shop: TinyShop, tmp_path: Path, keep_alive: bool) -> None:
    spec = make_spec(shop, tmp_path, mix={"search": 1.0}, keep_alive=keep_alive)
    summary = play(spec, tmp_path)
    assert summary.failed == 0
    assert (len(shop.connections) == summary.requests) is not keep_alive


def test_stop_ends_early_with_a_summary(shop: TinyShop, tmp_path: Path) -> None:
    store = Store(tmp_path / "lab.db")
    run = LoadRun(make_spec(shop, tmp_path, curve=[(0.0, 50.0), (60.0, 50.0)]), tmp_path)
    until(lambda: store.requests(run="r1"), "the first requests")
    summary = run.stop()
    assert 0 < summary.requests < 1000
    assert summary.orders_lost == 0
    assert not run.running


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL])
def test_customers_go_when_their_parent_ends(shop: TinyShop, tmp_path: Path, ending: int) -> None:
    store = Store(tmp_path / "lab.db")
    code = f"""
        import time
        from pathlib import Path
        from devops_lab.platform.traffic.load import LoadRun, LoadSpec
        spec = LoadSpec({shop.url!r}, "r1", {str(tmp_path / "lab.db")!r}, [(0.0, 20.0), (60.0, 20.0)])
        print(LoadRun(spec, Path({str(tmp_path)!r})).process.pid, flush=True)
        time.sleep(60)
    """
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).resolve().parents[2],
    )
    assert parent.stdout
    child = psutil.Process(int(parent.stdout.readline()))
    until(lambda: store.requests(run="r1"), "the first requests")
    os.kill(parent.pid, ending)
    parent.communicate()
    until(lambda: not child.is_running() or child.status() == "zombie", "the customers to go")
