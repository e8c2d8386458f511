"""The Docker engine goes away in the middle of a deployment, and comes back."""

from __future__ import annotations

from pathlib import Path

import pytest

from devops_lab.errors import LabError
from devops_lab.model import Replica, Step
from devops_lab.phases.deploy import Deploy
from tests.engines.proxied import Proxy
from tests.patience import until
from tests.phases.production import production
from tests.production import get


@pytest.mark.docker
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_an_engine_that_goes_away_in_a_deployment_leaves_the_old_version_serving(tmp_path: Path) -> None:
    proxy = Proxy(tmp_path / "docker.sock")
    versions = ("1.0.0", "1.1.0")
    with production(tmp_path / "lab", *versions, engine="docker", docker_host=proxy.address) as world:
        deploy = Deploy(world)
        deploy.run("1.0.0")
        before = {replica.handle for replica in world.store.all(Replica)}

        def cut(step: Step) -> None:
            if step.name.startswith("migrate"):
                proxy.cut()

        with pytest.raises(LabError, match="No Docker engine answers"):
            deploy.run("1.1.0", on_step=cut)
        assert deploy.current() == "1.0.0"
        assert deploy.history()[-1].state == "refused"
        assert "1.0.0" in get(world.control.url() + "/api/info")
        assert {replica.handle for replica in world.store.all(Replica)} == before
        proxy.restore()
        world.control.wait_settled(60)
        assert deploy.run("1.1.0").state == "done"
        until(lambda: "1.1.0" in get(world.control.url() + "/api/info"), "the new version to serve")
        assert not before & {replica.handle for replica in world.store.all(Replica)}
