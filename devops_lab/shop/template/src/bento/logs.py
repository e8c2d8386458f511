"""Logs: one JSON object a line on standard output; the platform collects them from there."""

import json
import logging
import sys
from datetime import UTC, datetime

from bento.config import Config

FIELDS = ("request_id", "method", "endpoint", "status", "seconds")


class JsonFormatter(logging.Formatter):
    """A log record as one line of JSON."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.release = config.release
        self.replica = config.replica

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "message": record.getMessage(),
            "logger": record.name,
        }
        extra = record.__dict__
        entry.update({field: extra[field] for field in FIELDS if field in extra})
        entry.update(release=self.release, replica=self.replica)
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


def configure(config: Config) -> None:
    """Send all logs to standard output as JSON."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter(config))
    logging.basicConfig(level=config.log_level, handlers=[handler], force=True)
    logging.getLogger("asyncio").setLevel("WARNING")
    logging.getLogger("uvicorn.error").name = "uvicorn"
