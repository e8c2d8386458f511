"""Where the Docker engine is: the one that the `docker` command would use; and whether on our loopback."""

from __future__ import annotations

import os
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import psutil
from docker.context import ContextAPI
from docker.utils import kwargs_from_env

from devops_lab.errors import EngineUnavailable

USUAL = "unix:///var/run/docker.sock"
BRIDGE = "docker0"  # the interface of an engine's default network: only its own network namespace has it


@dataclass(frozen=True)
class Address:
    """Where an engine is.

    Args:
        host: as DOCKER_HOST has it.
        context: the docker context that names it; empty where none does.
        tls: docker-py's settings for a connection with certificates.
    """

    host: str
    context: str = ""
    tls: Any = None

    def __str__(self) -> str:
        return f"{self.host}, context {self.context}" if self.context else self.host


def address(host: str = "") -> Address:
    """Where the `docker` command would look: DOCKER_HOST, else DOCKER_CONTEXT, else the context in use.

    Args:
        host: an address that is wanted instead; the context that names it, if any, knows its certificates.

    Raises:
        EngineUnavailable: the context that is named does not exist, or can't be read.

    Source: Docker's documentation, "Docker contexts", and the order in docker/cli's resolveContextName.
    """
    told = kwargs_from_env()
    if not host and "base_url" in told:
        return Address(str(told["base_url"]), tls=told.get("tls"))
    name = os.environ.get("DOCKER_CONTEXT") or ""
    try:
        known = ContextAPI.contexts() if host else [ContextAPI.get_context(name or None)]
        found = next((one for one in known if one and host in ("", one.Host)), None)
    except Exception as error:  # docker-py lets through what json and the file system say
        if host:
            return Address(host, tls=told.get("tls"))
        raise no_context(name or "in use", str(error)) from error
    if found is None and not host:
        raise no_context(name or "in use", "there is none of that name")
    if found is None or found.Name == "default":
        return Address(host or USUAL, tls=told.get("tls"))
    return Address(str(found.Host), found.Name, found.TLSConfig)


def no_context(name: str, why: str) -> EngineUnavailable:
    return EngineUnavailable(
        f"The docker context {name} can't be used: {why}.",
        expected="a context that `docker context ls` lists",
        next_step='docker context use default (or unset DOCKER_CONTEXT); or take engine = "process".',
    )


def is_apart(host: str) -> bool:
    """Whether this runs in a container and the engine at `host` outside: its loopback is not the one here."""
    where = urlsplit(host)
    if where.scheme != "unix" or not hasattr(socket, "SO_PEERCRED"):
        return False
    with suppress(OSError), socket.socket(socket.AF_UNIX) as line:
        line.connect(where.path)
        peer = line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        pid = struct.unpack("3i", peer)[0]  # 0: a process that can't be seen from here (socket(7), unix(7))
        return pid == 0 and BRIDGE not in psutil.net_if_addrs()
    return False
