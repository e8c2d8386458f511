"""Work that outlives its cell: customers go with the cell, kernel or notebook that called them."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import date
from functools import partial
from pathlib import Path

import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

from devops_lab.errors import BadInput
from devops_lab.lab import Lab
from devops_lab.lab.parts import Operations
from devops_lab.model import Crowd, LoadSummary
from devops_lab.phases.operate import Operate
from devops_lab.platform.context import LabContext
from devops_lab.platform.settings import Settings
from devops_lab.platform.store import Store
from devops_lab.platform.traffic.load import LoadRun
from devops_lab.shop import found_repository
from tests.patience import until
from tests.phases.production import production
from tests.traffic.test_load import TinyShop, make_spec

TIMEOUT = 60


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with (
        production(tmp_path_factory.mktemp("labs") / "lab", "1.0.0") as world,
        Lab.open(world.root) as opened,
    ):
        found_repository(world.origin, world.shop, date(2026, 1, 5))
        opened.deploy.run("1.0.0")
        yield opened


@pytest.fixture
def shop() -> Iterator[TinyShop]:
    tiny = TinyShop()
    yield tiny
    tiny.close()


class Kernel:
    """A notebook's kernel with the lab open: runs cells, and keeps what they print."""

    def __init__(self, root: Path) -> None:
        self.manager = KernelManager()
        self.manager.start_kernel(env=os.environ | {"JPY_SESSION_NAME": "course/07-operate.ipynb"})
        self.client: BlockingKernelClient = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=TIMEOUT)
        self.opening = f"from devops_lab import Lab; lab = Lab.open({str(root)!r})"
        self.run(self.opening)

    def send(self, code: str) -> str:
        return str(self.client.execute(code))

    def finish(self, sent: str) -> tuple[str, str]:
        """Wait for a cell; how it ended, and what it printed."""
        printed = ""
        while True:
            message = self.client.get_iopub_msg(timeout=TIMEOUT)
            if message["parent_header"].get("msg_id") != sent:
                continue
            if message["msg_type"] == "stream":
                printed += message["content"]["text"]
            if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                break
        while (reply := self.client.get_shell_msg(timeout=TIMEOUT))["parent_header"]["msg_id"] != sent:
            pass
        return reply["content"]["status"], printed

    def run(self, code: str) -> str:
        status, printed = self.finish(self.send(code))
        assert status == "ok", printed
        return printed


@pytest.fixture
def kernel(lab: Lab) -> Iterator[Kernel]:
    made = Kernel(lab.root)
    yield made
    made.client.stop_channels()
    made.manager.shutdown_kernel(now=True)
    until(lambda: not lab.operate.customers(), "the customers to go")


def present(lab: Lab, count: int = 1) -> list[Crowd]:
    """So many crowds are in the shop, and served."""

    def served() -> list[Crowd]:
        found = lab.operate.customers()
        here = len(found) == count and all(lab.store.requests(run=crowd.run, limit=1) for crowd in found)
        return found if here else []

    return until(served, "customers")


# ---- the cell
def test_an_interrupted_cell_takes_its_customers_along(lab: Lab, kernel: Kernel) -> None:
    """12a: the rush of notebook 07 was interrupted after 5 s, and the next one came on top of it."""
    cell = "rush = lab.operate.load(40, 120)\nimport time; time.sleep(100)"
    sent = kernel.send(cell)
    present(lab)
    kernel.manager.interrupt_kernel()
    status, printed = kernel.finish(sent)
    assert (status, lab.operate.customers()) == ("error", [])
    assert "The cell was interrupted: its customers (40 requests/s) were sent home." in printed
    kernel.send(cell)
    present(lab, 1)


@pytest.mark.parametrize("wait", ["lab.operate.load(40, 120).wait()", "run.wait()"])
def test_an_interrupted_wait_sends_them_home(lab: Lab, kernel: Kernel, wait: str) -> None:
    """Also in a later cell than the one that sent them: nobody waits for them any more."""
    if wait.startswith("run"):
        kernel.run("run = lab.operate.load(40, 120)")
    sent = kernel.send(wait)
    present(lab)
    kernel.manager.interrupt_kernel()
    assert kernel.finish(sent)[0] == "error"
    until(lambda: not lab.operate.customers(), "them to go")


def test_a_cell_that_fails_takes_its_customers_along(lab: Lab, kernel: Kernel) -> None:
    status, printed = kernel.finish(kernel.send("lab.operate.load(40, 120)\n1 / 0"))
    assert (status, lab.operate.customers()) == ("error", [])
    assert "The cell failed: its customers" in printed


def test_a_later_cell_finds_the_customers_of_one_that_ended_well(lab: Lab, kernel: Kernel) -> None:
    """As the notebooks do it: called in one cell, sent home in another, whatever failed in between."""
    kernel.run("run = lab.operate.load(40, 120)")
    kernel.finish(kernel.send("1 / 0"))
    present(lab)
    assert int(kernel.run("print(run.stop().requests)")) > 0
    assert lab.operate.customers() == []


def test_a_cell_that_is_run_again_replaces_its_customers(lab: Lab, kernel: Kernel) -> None:
    kernel.run("run = lab.operate.load(40, 120)")
    first = present(lab)[0]
    printed = kernel.run("run = lab.operate.load(40, 120)")
    assert "This cell runs again: its customers" in printed
    assert present(lab)[0].run != first.run


def test_a_notebook_that_is_run_anew_begins_with_an_empty_shop(lab: Lab, kernel: Kernel) -> None:
    kernel.run("run = lab.operate.load(40, 120)")
    present(lab)
    assert "The notebook begins anew" in kernel.run(kernel.opening)
    assert lab.operate.customers() == []


def test_they_stay_when_told_so(lab: Lab, kernel: Kernel) -> None:
    kernel.finish(kernel.send("lab.operate.load(40, 120, outlives_cell=True)\n1 / 0"))
    present(lab)


@pytest.mark.parametrize("restart", [True, False])
def test_they_go_with_their_kernel(lab: Lab, kernel: Kernel, restart: bool) -> None:
    kernel.run("run = lab.operate.load(40, 120)")
    present(lab)
    if restart:
        kernel.manager.restart_kernel(now=True)
    else:
        pid = kernel.manager.provisioner.pid  # type: ignore[union-attr]
        os.kill(pid, signal.SIGKILL)
    until(lambda: not lab.operate.customers(), "them to go")


@pytest.mark.timeout(120)
def test_an_interrupted_drill_is_undone_with_its_customers(lab: Lab, kernel: Kernel) -> None:
    """Customers of a drill are here for ten minutes; its cell must be able to begin another one."""
    sent = kernel.send('drill = lab.operate.drill("packet delay")\nimport time; time.sleep(100)')
    until(lambda: lab.operate.drills() and present(lab), "the drill")
    until(lambda: lab.store.events(kind="drill.started"), "its start")
    kernel.manager.interrupt_kernel()
    status, printed = kernel.finish(sent)
    assert (status, lab.operate.customers()) == ("error", [])
    assert "drill 1 was undone" in printed
    assert lab.operate.drills()[-1].state == "undone"
    assert not (lab.root / "run" / "drill.json").exists()


# ---- who is in the shop
def test_status_names_who_is_in_the_shop_and_anybody_can_send_them_home(lab: Lab, kernel: Kernel) -> None:
    kernel.run("run = lab.operate.load(40, 120)")
    [crowd] = present(lab)
    assert crowd.who.startswith("07-operate, cell [2], kernel ")
    assert (crowd.rate, crowd.peak, round(crowd.until - crowd.since)) == (40, 40, 120)
    command = [sys.executable, "-m", "devops_lab", "status", "--lab", str(lab.root)]
    told = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    assert f"customers      run {crowd.run} of 07-operate, cell [2], kernel" in told
    assert crowd.run in lab.status()["customers"][0]
    with pytest.raises(BadInput, match="'nobody'"):
        lab.operate.send_home("nobody")
    assert [gone.run for gone in lab.operate.send_home()] == [crowd.run]
    assert lab.operate.customers() == []
    assert int(kernel.run("print(run.wait().requests)")) > 0  # what they measured is kept


def test_who_comes_second_is_told_of_the_first(
    lab: Lab, kernel: Kernel, capsys: pytest.CaptureFixture[str]
) -> None:
    kernel.run("run = lab.operate.load(40, 120)")
    with Operate(lab.world).load(5, 60):
        assert "Others are in the shop already: run" in capsys.readouterr().out
        assert len(lab.operate.customers()) == 2


def test_a_record_whose_process_is_gone_names_nobody(lab: Lab) -> None:
    with Operate(lab.world).load(20, 60) as run:
        os.kill(run.process.pid, signal.SIGKILL)
        run.process.wait()
        assert lab.operate.customers() == []
        assert run.id in {crowd.run for crowd in lab.store.all(Crowd)}


# ---- what was never sent
def limited_files() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60))


@pytest.mark.parametrize("why", ["in flight", "files"])
def test_what_was_never_sent_is_counted_as_that(
    shop: TinyShop,
    tmp_path: Path,
    why: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """12b: 25,000 such requests stood as endpoints "page", "menu", "order" with 0 ms."""
    store = Store(tmp_path / "lab.db")
    shop.frozen_until = time.monotonic() + 3
    if why == "files":  # as on systems that let a process open 256 files
        monkeypatch.setattr(subprocess, "Popen", partial(subprocess.Popen, preexec_fn=limited_files))
    most = {"max_in_flight": 10} if why == "in flight" else {}
    spec = make_spec(shop, tmp_path, curve=[(0.0, 200.0), (1.5, 200.0)], timeout_seconds=5.0, **most)
    with LoadRun(spec, tmp_path) as run:
        summary = run.wait()
    assert summary.not_sent > 50
    assert "were never sent" in capsys.readouterr().out
    rows = store.requests(run="r1")
    assert {row.endpoint for row in rows} <= {
        "/",
        "/api/menu",
        "/api/search",
        "/api/orders",
        "/api/orders/{id}",
    }
    assert set(summary.by_endpoint) <= {row.endpoint for row in rows}
    assert summary.requests < 100
    assert all(row.seconds > 0 for row in rows)
    assert f"{summary.not_sent} never sent" in store.events(kind="load.done")[-1].message
    assert store.get(LoadSummary, "r1") == summary


# ---- what nobody can send
NAN, INF = float("nan"), float("inf")
ABSURD: list[Callable[[Operations], object]] = [
    lambda operate: operate.load(rate=0),
    lambda operate: operate.load(rate=-5),
    lambda operate: operate.load(rate=NAN),
    lambda operate: operate.load(rate=1e9),
    lambda operate: operate.load(seconds=INF),
    lambda operate: operate.load(seconds=0),
    lambda operate: operate.load(seconds="30 seconds"),  # type: ignore[arg-type]
    lambda operate: operate.load(rate=None),  # type: ignore[arg-type]
    lambda operate: operate.load(curve=[]),
    lambda operate: operate.load(curve=[(0, 10), (NAN, 10)]),
    lambda operate: operate.load(curve=[(0, "10"), (5, 10)]),  # type: ignore[list-item]
    lambda operate: operate.load(curve=[(0, 10, 3), (5, 10, 3)]),  # type: ignore[list-item]
    lambda operate: operate.load(curve=[3, 4]),  # type: ignore[list-item]
    lambda operate: operate.load(mix={"menu": NAN}),
    lambda operate: operate.load(mix={"menu": "much"}),  # type: ignore[dict-item]
    lambda operate: operate.load(mix=["menu"]),  # type: ignore[arg-type]
    lambda operate: operate.load(seed="seven"),  # type: ignore[arg-type]
    lambda operate: operate.day(seconds=NAN),
    lambda operate: operate.day(peak="high"),  # type: ignore[arg-type]
    lambda operate: operate.day(low=10, peak=5),
    lambda operate: operate.race({"two": 2}, seconds=INF),
    lambda operate: operate.compare_loops(rate=0),
    lambda operate: operate.compare_loops(seconds="5"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize("number", range(len(ABSURD)))
def test_an_absurd_load_is_refused_in_words(lab: Lab, number: int) -> None:
    before = len(lab.store.events(kind="operate.scaled"))
    with pytest.raises(BadInput):
        ABSURD[number](lab.operate)
    assert lab.operate.customers() == []
    assert len(lab.store.events(kind="operate.scaled")) == before


def test_where_nothing_is_in_production_nobody_comes(tmp_path: Path) -> None:
    """The advice was to open the lab again, which helps nobody here."""
    world = LabContext(tmp_path, Settings(), Store(tmp_path / "lab.db"))
    with pytest.raises(BadInput, match="Nothing is in production"):
        Operate(world).load()
