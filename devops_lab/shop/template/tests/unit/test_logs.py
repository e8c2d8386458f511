"""The format of the logs."""

import json
import logging
import sys

from bento.config import Config
from bento.logs import JsonFormatter

FORMATTER = JsonFormatter(Config(release="1.2.3", replica="r1"))


def record(message: str, *arguments: object, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("bento.access", logging.INFO, __file__, 1, message, arguments, None)
    made.__dict__.update(extra)
    return made


def test_a_record_is_one_line_of_json():
    line = FORMATTER.format(record("said %s", "two\nlines", request_id="abc", status=200))
    entry = json.loads(line)
    assert "\n" not in line
    assert entry["message"] == "said two\nlines"
    assert (entry["level"], entry["logger"], entry["request_id"], entry["status"]) == (
        "INFO",
        "bento.access",
        "abc",
        200,
    )
    assert (entry["release"], entry["replica"]) == ("1.2.3", "r1")
    assert entry["time"].endswith("+00:00")


def test_a_traceback_goes_along():
    failed = record("failed")
    try:
        raise ValueError("no rice")
    except ValueError:
        failed.exc_info = sys.exc_info()
    assert "no rice" in json.loads(FORMATTER.format(failed))["traceback"]
