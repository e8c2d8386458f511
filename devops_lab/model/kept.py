"""What the store keeps has a key."""

from __future__ import annotations

from typing import Any


class Kept:
    """A record that the store keeps under a key, unique within its kind: the field that `by` names."""

    _by = ""

    def __init_subclass__(cls, by: str = "", **more: Any) -> None:
        super().__init_subclass__(**more)
        cls._by = by

    @property
    def key(self) -> str:
        return str(getattr(self, self._by))
