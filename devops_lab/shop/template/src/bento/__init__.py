"""bento: orders of lunch boxes."""

import os


def _installed() -> str:
    from importlib import metadata  # production says which release this is, and starts without it

    return metadata.version("bento")


__version__ = os.environ.get("BENTO_RELEASE") or _installed()
