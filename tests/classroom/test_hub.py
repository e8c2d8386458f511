"""A class at a real JupyterHub: everybody in a lab of their own, at the same time, through the hub."""

from __future__ import annotations

import asyncio
import re

import nbformat
import pytest

from devops_lab.platform.clock import steady
from devops_lab.workbook.options import find_notebooks
from tests.classroom import hub
from tests.patience import until

pytestmark = [pytest.mark.hub, pytest.mark.slow, pytest.mark.timeout(3600)]
NAMES = ["dl-ann", "dl-bob", "dl-cid", "dl-eve"]
QUICK = "pace, view = 'quick', 'static'"


def cells(number: str) -> list[str]:
    """The code cells of a notebook, at the quick pace."""
    path = next(path for path in find_notebooks() if path.name.startswith(number))
    code = [c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
    parameters = next(n for n, source in enumerate(code) if source.startswith("lab_dir = None"))
    return [*code[: parameters + 1], QUICK, *code[parameters + 1 :]]


LOOK = """
from devops_lab import Lab
with Lab.open() as lab:
    print("AT", lab.url, lab.deploy.current(), lab.root)
"""


def test_four_learners_at_once() -> None:
    async def work(made: hub.Hub, name: str) -> hub.Learner:
        learner, began = await made.learner(name), steady()
        for number in ("00", "01", "02", "03", "04", "05", "06"):
            await learner.run(cells(number))
            print(f"{name}: {number} after {steady() - began:.0f} s", flush=True)
        return learner

    async def scene(made: hub.Hub) -> None:
        ann, bob, *_ = await asyncio.gather(*(work(made, name) for name in NAMES))
        seen = {each.name: (await each.run([LOOK])) for each in (ann, bob)}
        url, version, root = re.search(r"AT http://127\.0\.0\.1:(\d+) (\S+) (\S+)", seen["dl-ann"]).groups()  # type: ignore[union-attr]
        assert root.endswith("/dl-ann/my-lab")

        # the shop in its frame, under the hub's address, and an order from there; nothing of it for others
        code, page = await ann.ask(f"proxy/{url}/")
        assert (code, "bento" in page.lower()) == (200, True)
        order = {"lines": [{"item": 1, "quantity": 1}], "customer": "Ann"}
        code, placed = await ann.ask(f"proxy/{url}/api/orders", "POST", **order)
        assert code == 201, placed
        code, _ = await made.ask(f"/user/dl-ann/proxy/{url}/", token=bob.token)
        assert code in (302, 403, 404)

        # the server is culled; a while later nothing runs; back, the lab wakes where it was
        code, _ = await made.ask("/hub/api/users/dl-ann/server", "DELETE")
        assert code in (202, 204)
        until(lambda: hub.processes("dl-ann") == [], "nothing of hers to run", seconds=240, every_seconds=1)
        ann = await made.learner("dl-ann")
        again = await ann.run([LOOK])
        assert "production slept, and serves again after" in again
        assert f" {version} {root}" in again

    with hub.hub(NAMES, DEVOPS_LAB_SLEEP_MINUTES="0.5") as made:
        asyncio.run(scene(made))
