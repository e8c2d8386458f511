"""A way to a Docker engine that can be cut, as when the engine stops; the engine itself is left alone."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from pathlib import Path

REAL = "/var/run/docker.sock"


class Proxy:
    """Passes bytes between a socket of its own and the engine's, until it is cut.

    Args:
        path: of its socket.
        real: of the engine's.
    """

    def __init__(self, path: Path, real: str = REAL) -> None:
        self.path, self.real = path, real
        self.lines: list[socket.socket] = []
        self.restore()

    @property
    def address(self) -> str:
        return f"unix://{self.path}"

    def restore(self) -> None:
        """Listen (again)."""
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(self.path))
        self.listener.listen(64)
        threading.Thread(target=self._accept, args=(self.listener,), daemon=True).start()

    def cut(self) -> None:
        """Hang up on everybody, and answer nobody any more."""
        self.listener.close()
        self.path.unlink(missing_ok=True)
        for line in self.lines:
            with suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)
        self.lines.clear()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                here, _ = listener.accept()
                there = socket.socket(socket.AF_UNIX)
                there.connect(self.real)
                self.lines += [here, there]
                for source, target in ((here, there), (there, here)):
                    threading.Thread(target=self._pass_on, args=(source, target), daemon=True).start()

    @staticmethod
    def _pass_on(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)
