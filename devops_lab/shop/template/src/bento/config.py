"""Configuration: everything comes from the environment, nothing from files."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

import bento

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


class ConfigError(Exception):
    """The environment asks for something that bento can't do."""


@dataclass(frozen=True)
class Config:
    """What one replica has to know."""

    database_url: str = "sqlite:///bento.db"
    release: str = "0"
    replica: str = "local"
    log_level: str = "INFO"
    drain_seconds: float = 0.0  # how long it says "not ready" before it stops


def from_environment(environment: Mapping[str, str] = os.environ) -> Config:
    """Read and check the configuration."""
    level = environment.get("BENTO_LOG_LEVEL", "INFO").upper()
    if level not in LOG_LEVELS:
        raise ConfigError(f"BENTO_LOG_LEVEL is {level!r}; expected one of {', '.join(LOG_LEVELS)}")
    url = environment.get("DATABASE_URL") or Config.database_url
    if not url.startswith(("sqlite:///", "postgresql://")):
        raise ConfigError(f"DATABASE_URL is {url!r}; expected sqlite:///FILE or postgresql://…")
    drain = environment.get("BENTO_DRAIN_SECONDS", "0")
    if not drain.replace(".", "", 1).isdecimal():
        raise ConfigError(f"BENTO_DRAIN_SECONDS is {drain!r}; expected a number of seconds")
    return Config(
        database_url=url,
        release=environment.get("BENTO_RELEASE") or bento.__version__,
        replica=environment.get("BENTO_REPLICA", "local"),
        log_level=level,
        drain_seconds=float(drain),
    )
