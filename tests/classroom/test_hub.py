"""A class at a real JupyterHub: everybody in a lab of their own, at the same time, through the hub."""

from __future__ import annotations

import asyncio
import pwd
import re
import signal
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from devops_lab.platform import variables
from devops_lab.platform.clock import steady
from devops_lab.workbook.options import find_notebooks
from tests.classroom import hub, visit
from tests.patience import until

pytestmark = [pytest.mark.hub, pytest.mark.alone, pytest.mark.slow, pytest.mark.timeout(3600)]
PEOPLE = ["ann", "bob", "cid", "eve"]
QUICK = "pace, view = 'quick', 'static'"
LOOK = """
from devops_lab import Lab
with Lab.open() as lab:
    print("AT", lab.url, lab.deploy.current(), lab.root)
"""
BROKEN_OFF = """
import subprocess
from tests.classroom import hub, visit
with hub.accounts(["ann"]) as (folder, [name]):
    (folder / "homes" / name / "work").mkdir()
    work = subprocess.Popen(["sleep", "3600"], user=name, cwd="/", start_new_session=True)
    print(folder, name, flush=True)
    work.wait()
"""


def cells(number: str) -> list[str]:
    """The code cells of a notebook, at the quick pace."""
    path = next(path for path in find_notebooks() if path.name.startswith(number))
    code = [c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
    parameters = next(n for n, source in enumerate(code) if source.startswith("lab_dir = None"))
    return [*code[: parameters + 1], QUICK, *code[parameters + 1 :]]


async def work(made: hub.Hub, name: str) -> hub.Learner:
    """One learner's way from Welcome to Deploy."""
    learner, began = await made.learner(name), steady()
    for number in ("00", "01", "02", "03", "04", "05", "06"):
        await learner.run(cells(number))
        print(f"{name}: {number} after {steady() - began:.0f} s", flush=True)
    return learner


async def look(learner: hub.Learner) -> tuple[str, str, str]:
    """The port of a learner's shop, its version, and where the lab lies."""
    said = await learner.run([LOOK])
    found = re.search(r"AT http://127\.0\.0\.1:(\d+) (\S+) (\S+)", said)
    assert found, said
    return found[1], found[2], found[3]


async def order_and_sleep(made: hub.Hub, ann: hub.Learner, bob: hub.Learner) -> None:
    """The shop under the hub's address, for its owner alone; then the lab sleeps and wakes."""
    port, version, root = await look(ann)
    assert root.endswith(f"/{ann.name}/my-lab")
    code, page = await ann.ask(f"proxy/{port}/")
    assert (code, "bento" in page.lower()) == (200, True)
    order = {"lines": [{"item": 1, "quantity": 1}], "customer": "Ann"}
    code, placed = await ann.ask(f"proxy/{port}/api/orders", "POST", **order)
    assert code == 201, placed
    code, _ = await made.ask(f"/user/{ann.name}/proxy/{port}/", token=bob.token)
    assert code in (302, 403, 404)

    # the server is culled; a while later nothing runs; back, the lab wakes where it was
    code, _ = await made.ask(f"/hub/api/users/{ann.name}/server", "DELETE")
    assert code in (202, 204)
    until(lambda: hub.processes(ann.name) == [], "nothing of hers to run", seconds=240, every_seconds=1)
    again = await (await made.learner(ann.name)).run([LOOK])
    assert "production slept, and serves again after" in again
    assert f" {version} {root}" in again


@pytest.mark.browser
def test_four_learners_at_once(chromium: str) -> None:
    async def work_of_all(made: hub.Hub) -> list[hub.Learner]:
        learners = await asyncio.gather(*(work(made, name) for name in made.names))
        await visit.write(learners[0])
        return learners

    with hub.hub(PEOPLE, DEVOPS_LAB_SLEEP_MINUTES="0.5") as made:
        ann, bob, *_ = asyncio.run(work_of_all(made))
        port, _, _ = asyncio.run(look(ann))
        visit.visit(made, ann.name, port, chromium)
        asyncio.run(order_and_sleep(made, ann, bob))


def test_nothing_is_left_when_it_is_killed() -> None:
    command = [sys.executable, "-c", BROKEN_OFF]
    with subprocess.Popen(
        command, cwd=hub.ROOT, env=variables.command(), stdout=subprocess.PIPE, text=True
    ) as maker:
        assert maker.stdout is not None
        folder, name = maker.stdout.readline().split()
        assert hub.processes(name) == ["sleep 3600"]
        maker.send_signal(signal.SIGKILL)
    until(lambda: not Path(folder).exists(), "the folder to go")
    assert hub.processes(name) == []
    assert name not in {each.pw_name for each in pwd.getpwall()}
