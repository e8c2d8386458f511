"""bento: orders of lunch boxes."""

import os
from importlib import metadata

__version__ = os.environ.get("BENTO_RELEASE") or metadata.version("bento")
