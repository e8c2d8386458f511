"""The images that the lab stands on, for a node that has none."""

from __future__ import annotations

from devops_lab.errors import LabError
from devops_lab.platform.engines.docker import Docker
from devops_lab.platform.engines.prepared import prepare, there


def bring_images(manager: Docker) -> None:
    """Copy the prepared images of this machine's own engine, which is quicker than making them again."""
    try:
        usual = Docker()
        tags = there(usual)
    except LabError:
        tags = {}
    for what in ("python", "registry", "postgres"):
        if tag := tags.get(what):
            archive = usual.client.api.get_image(tag)
            for _ in manager.client.api.load_image(archive):
                pass
        else:
            prepare(manager, what)
