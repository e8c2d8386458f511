"""A helper package for the DevOps notebooks: take one real web shop through its whole life.

Importing it is light: nothing heavy is loaded before it is asked for, so `devops_lab.__main__` also works
on a machine where nothing is installed yet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from devops_lab.lab import Lab

__version__ = "0.1.0"
__all__ = ["Lab", "__version__"]


def __getattr__(name: str) -> object:
    """Load `Lab` when it is first asked for."""
    if name == "Lab":
        from devops_lab.lab import Lab

        return Lab
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
