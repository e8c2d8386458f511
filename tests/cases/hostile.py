"""The variables of `hostile.env`, for tests that set them all at once."""

from __future__ import annotations

import shlex
from pathlib import Path

FILE = Path(__file__).with_name("hostile.env")
LINES = (line for line in FILE.read_text("utf-8").splitlines() if line[:1].isalpha())
HOSTILE = {name: shlex.split(value)[0] for name, _, value in (line.partition("=") for line in LINES)}
SECRET = "a-secret"
# A proxy, and the text that a reader's desktop speaks, are for who fetches, and for who is read.
MAY_PASS = {"http_proxy", "HTTP_PROXY", "no_proxy"}
