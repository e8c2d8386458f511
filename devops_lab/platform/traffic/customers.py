"""Customers of the shop, in a process of their own: `python -m devops_lab.platform.traffic.customers FILE`.

Each request is sent when it is due, and its waiting counts from then on. The process ends with its parent.
"""

from __future__ import annotations

import asyncio
import errno
import os
import random
import resource
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from devops_lab.model import Crowd, LoadSummary, Request
from devops_lab.platform.clock import GAP_SECONDS, steady
from devops_lab.platform.processes import created_at, outlive_nobody
from devops_lab.platform.store import Store
from devops_lab.platform.traffic.load import (
    NOT_SENT,
    LoadSpec,
    arrivals,
    endpoint_figures,
    failed,
    percentile,
)

ORDER_TRIES = 5
REQUESTS_PER_SESSION = 6
BEAT_SECONDS = 0.25
WAKE_SECONDS = 1.0  # after a sleep, production has so long to wake up before anybody comes
SPARE_FILES = 40  # of those that this process may open, for all but connections
NEVER_SENT = -1  # in place of a status
# What stands in the way of a request on this side: no file or port left for one more connection.
OURS = (errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM)


@dataclass
class Session:
    """One customer: looks at the page first, and asks only for an order of their own."""

    id: str
    left: int = REQUESTS_PER_SESSION
    order_id: str = ""


class Customers:
    """Sends what is due, keeps every outcome, and checks at the end that no order was lost or doubled."""

    def __init__(self, spec: LoadSpec, http: aiohttp.ClientSession, store: Store) -> None:
        self.spec, self.http, self.store = spec, http, store
        self.base = spec.url.rstrip("/")
        self.rng = random.Random(spec.seed)
        self.stopped = asyncio.Event()
        self.orphaned = False
        self.finals: list[Request] = []
        self.unsaved: list[Request] = []
        self.accepted: dict[str, str] = {}  # order key -> order id
        self.uncertain: set[str] = set()  # keys of orders that were never answered well
        self.lost = self.doubled = self.retried = self.wrong = self.not_sent = 0
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.most = spec.max_in_flight if files < 0 else min(spec.max_in_flight, files - SPARE_FILES)
        self.prices: dict[int, int] = {}  # cents, as the menu said
        self.items: list[Any] = [1]
        self.words = ["rice"]
        self.sessions: list[Session] = []
        self.seen = steady()
        self.gap = (0.0, 0.0)  # when nobody here could do anything: stopped, or asleep with the machine
        self.writer = ThreadPoolExecutor(1)  # the store is written beside the event loop, never on it

    async def run(self) -> LoadSummary:
        """Play the whole curve, wait for the last answers, verify the orders, and sum up."""
        await self.read_menu()
        # The writer opens its files now: later, customers may have taken all that this process can have.
        await asyncio.get_running_loop().run_in_executor(self.writer, self.store.now)
        spec, now = self.spec, self.store.now()
        peak = max(rate for _, rate in spec.curve)
        me, until = (os.getpid(), created_at(os.getpid())), now + spec.seconds
        self.store.put(Crowd(spec.run, spec.who, now, until, spec.planned() / spec.seconds, peak, *me))
        plan = f"{spec.planned():.0f} requests planned"
        self.store.event("operate", "load.started", f"load:{spec.run}", plan, who=spec.who)
        beside = [asyncio.create_task(work()) for work in (self.save_often, self.beat)]
        started = self.now()
        late = await self.send_all(started, self.store.now() - started)
        seconds = self.now() - started - late
        for task in beside:
            task.cancel()
        await self.save()
        if not self.orphaned:
            await self.verify()
        return self.summary(seconds)

    def now(self) -> float:
        """Seconds of the steady clock; asked often, so it notices when nobody could ask."""
        now = steady()
        if now - self.seen > GAP_SECONDS:
            self.gap = self.seen, now
        self.seen = now
        return now

    async def beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            self.now()

    async def send_all(self, started: float, ahead: float) -> float:
        """Send each request when it is due; what is due in a gap comes after it, not all at once.

        Returns:
            Seconds that all came later for gaps.
        """
        flying: set[asyncio.Task[None]] = set()
        late, gap = 0.0, self.gap
        # Chance of their own for arrivals and for each request: the same seed brings the same customers,
        # however long the answers take.
        for number, due in enumerate(arrivals(self.spec, random.Random(self.spec.seed))):
            await self.sleep_until(started + late + due)
            while gap != self.gap:
                gap, late = self.gap, late + self.gap[1] - self.gap[0] + WAKE_SECONDS
                told = f"customers slept for {gap[1] - gap[0]:.0f} s: a gap, which is in no figure"
                self.store.event("operate", "load.gap", f"load:{self.spec.run}", told)
                await self.sleep_until(started + late + due)
            if self.stopped.is_set():
                break
            session, kind = self.next_request()
            rng = random.Random(self.rng.random())
            run, name = self.spec.run, f"{self.spec.run}-{number}"
            at = started + late + due
            outcome = Request(ahead + at, kind, 0, 0.0, run=run, session=session.id, request_id=name)
            if len(flying) >= self.most:
                self.not_sent += 1  # waiting here would close the loop in silence
                continue
            task = asyncio.create_task(self.serve(kind, session, outcome, at, rng))
            flying.add(task)
            task.add_done_callback(flying.discard)
        if flying:
            await asyncio.wait(flying, timeout=2.0 if self.orphaned else self.spec.timeout_seconds * 2)
        return late

    async def sleep_until(self, moment: float) -> None:
        if (left := moment - self.now()) > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(self.stopped.wait(), left)
            self.now()

    def next_request(self) -> tuple[Session, str]:
        """One of the customers who are in the shop now, and what they do next."""
        present = max(5, int(self.spec.planned() / self.spec.seconds))
        while len(self.sessions) < present:
            self.sessions.append(Session(f"{self.spec.run}-c{self.rng.randrange(16**6):06x}"))
        session = self.rng.choice(self.sessions)
        first = session.left == REQUESTS_PER_SESSION
        session.left -= 1
        if session.left == 0:
            self.sessions.remove(session)
        kinds, weights = zip(*self.spec.mix.items(), strict=True)
        kind = "page" if first and self.spec.mix.get("page") else self.rng.choices(kinds, weights)[0]
        return session, "menu" if kind == "status" and not session.order_id else kind

    async def serve(
        self, kind: str, session: Session, outcome: Request, due: float, rng: random.Random
    ) -> None:
        """One request; an order answered with an error, or not at all, is sent again with the same key."""
        if kind != "order":
            paths = {
                "page": ("/", "/"),
                "menu": ("/api/menu", "/api/menu"),
                "search": ("/api/search", f"/api/search?q={rng.choice(self.words)}"),
                "status": ("/api/orders/{id}", f"/api/orders/{session.order_id}"),
            }
            endpoint, path = paths[kind]
            answer, _ = await self.ask("GET", path, replace(outcome, endpoint=endpoint), due)
            return self.keep(answer, due, final=True)
        key = outcome.request_id
        wanted = rng.sample(self.items, rng.randint(1, min(3, len(self.items))))
        lines = [{"item": item, "quantity": rng.randint(1, 3)} for item in wanted]
        body = {"lines": lines, "customer": session.id}
        outcome = replace(outcome, endpoint="/api/orders", order_key=key)
        self.uncertain.add(key)
        for attempt in range(1, ORDER_TRIES + 1):
            answer, order = await self.ask("POST", "/api/orders", outcome, due, body)
            good = answer.status in (200, 201)
            final = good or 400 <= answer.status < 500 or attempt == ORDER_TRIES or self.orphaned
            self.keep(answer, due, final=final)
            if good:
                session.order_id = str(order.get("id", ""))
                self.accepted[key] = session.order_id
                self.check_bill(order, lines)
                self.uncertain.discard(key)
            if final:
                return None
            self.retried += 1
            await asyncio.sleep(0.05 * 2**attempt)  # back off: don't trample a shop that is down
        return None

    def check_bill(self, order: dict[str, Any], lines: list[dict[str, Any]]) -> None:
        """Customers add up what they ordered; a menu without prices says nothing."""
        if self.prices and "total_cents" in order:
            self.wrong += order["total_cents"] != sum(self.prices[x["item"]] * x["quantity"] for x in lines)

    async def ask(
        self, method: str, path: str, outcome: Request, due: float, body: dict[str, Any] | None = None
    ) -> tuple[Request, dict[str, Any]]:
        headers = {"X-Request-Id": outcome.request_id}
        if body:
            headers["Idempotency-Key"] = outcome.order_key
        status, release, error = 0, "", ""
        data: dict[str, Any] = {}
        try:
            async with self.http.request(
                method, self.base + path, json=body, headers=headers, allow_redirects=False
            ) as answer:
                raw = await answer.read()
                status, release = answer.status, answer.headers.get("X-Release", "")
                error = "" if status < 400 else raw[:120].decode(errors="replace")
                data = msgspec.json.decode(raw) if body and status < 300 else {}
        except Exception as problem:  # whatever went wrong, the customer got no answer
            status, error = 0, f"{type(problem).__name__}: {problem}"[:120]
            if isinstance(problem, OSError) and problem.errno in OURS:
                status = NEVER_SENT
        seconds = self.now() - due
        return replace(outcome, status=status, seconds=seconds, release=release, error=error), data

    def keep(self, outcome: Request, due: float, *, final: bool) -> None:
        """Take a request into the figures; not one that was under way in a gap, which measured the gap."""
        if outcome.status == NEVER_SENT:  # no endpoint had to do with it
            self.not_sent += final
        if outcome.status == NEVER_SENT or due < self.gap[1]:
            return
        self.unsaved.append(outcome)
        if final:
            self.finals.append(outcome)

    async def read_menu(self) -> None:
        """Learn what can be ordered and searched for; a shop that is down gets its customers all the same."""
        try:
            async with self.http.get(self.base + "/api/menu", allow_redirects=False) as answer:
                items = msgspec.json.decode(await answer.read())["items"]
            self.items = [item["id"] for item in items] or self.items
            self.prices = {item["id"]: item["price_cents"] for item in items if "price_cents" in item}
            words = {word.lower() for item in items for word in str(item["name"]).split() if word.isalpha()}
            self.words = sorted(words) or self.words
        except Exception as problem:
            print(f"No menu: {type(problem).__name__}: {problem}", flush=True)

    # ---- what stays
    async def save_often(self) -> None:
        while True:
            await asyncio.sleep(0.25)
            await self.save()

    async def save(self) -> None:
        rows, self.unsaved = self.unsaved, []
        if rows:
            loop = asyncio.get_running_loop()
            await asyncio.shield(loop.run_in_executor(self.writer, self.store.add_requests, rows))

    async def verify(self) -> None:
        """Ask the shop for every order by its key: each accepted one must be there exactly once."""
        limit = asyncio.Semaphore(16)

        async def look(key: str, order_id: str | None) -> None:
            async with limit:
                found = await self.find_orders(key)
            self.doubled += len(found) > 1
            self.lost += order_id is not None and order_id not in found

        wanted: dict[str, str | None] = {**dict.fromkeys(self.uncertain), **self.accepted}
        await asyncio.gather(*(look(key, order_id) for key, order_id in wanted.items()))

    async def find_orders(self, key: str) -> list[str]:
        for attempt in range(4):
            try:
                async with self.http.get(self.base + "/api/orders", params={"key": key}) as answer:
                    if answer.status == 200:
                        found = msgspec.json.decode(await answer.read())
                        return [str(order["id"]) for order in found["orders"]]
            except Exception:  # asked again below; an order that can't be confirmed counts as lost
                pass
            await asyncio.sleep(0.2 * 2**attempt)
        return []

    def summary(self, seconds: float) -> LoadSummary:
        waits = [o.seconds for o in self.finals if o.seconds]
        ends: dict[str, list[Request]] = {}
        releases: dict[str, int] = {}
        for outcome in self.finals:
            ends.setdefault(outcome.endpoint, []).append(outcome)
            releases[outcome.release] = releases.get(outcome.release, 0) + 1
        return LoadSummary(
            run=self.spec.run,
            requests=len(self.finals),
            not_sent=self.not_sent,
            failed=sum(failed(o) for o in self.finals),
            seconds=seconds,
            rate=len(self.finals) / seconds if seconds else 0.0,
            p50=percentile(waits, 0.5),
            p95=percentile(waits, 0.95),
            p99=percentile(waits, 0.99),
            orders_accepted=len(self.accepted),
            orders_lost=self.lost,
            orders_doubled=self.doubled,
            orders_retried=self.retried,
            orders_wrong=self.wrong,
            by_endpoint={name: endpoint_figures(rows) for name, rows in sorted(ends.items())},
            by_release=dict(sorted(releases.items())),
        )


async def play(spec: LoadSpec) -> None:
    """The whole life of a load process."""
    # No limit on connections: the limit is on requests in flight, and is counted, not waited for.
    connector = aiohttp.TCPConnector(limit=0, force_close=not spec.keep_alive)
    timeout = aiohttp.ClientTimeout(total=spec.timeout_seconds)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as http:
        customers = Customers(spec, http, Store(Path(spec.store)))
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, customers.stopped.set)

        def orphan() -> None:
            customers.orphaned = True
            loop.call_soon_threadsafe(customers.stopped.set)
            time.sleep(8)
            os._exit(1)  # the last answers did not come in time

        outlive_nobody(orphan)
        summary = await customers.run()
        customers.store.put(summary)
        text = f"{summary.requests} requests, {summary.failed} failed, p95 {summary.p95 * 1000:.0f} ms"
        text += f"; {summary.not_sent} never sent ({NOT_SENT})" if summary.not_sent else ""
        customers.store.event("operate", "load.done", f"load:{spec.run}", text, who=spec.who)
        customers.store.remove(Crowd, spec.run)


if __name__ == "__main__":
    asyncio.run(play(msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=LoadSpec)))
