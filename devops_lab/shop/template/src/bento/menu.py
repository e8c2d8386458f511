"""The menu: read from the database, kept for a few seconds because every page view asks for it."""

import json
from dataclasses import dataclass
from time import monotonic
from typing import Any

from bento.database import Database
from bento.search import fold

FRESH_SECONDS = 5.0

COLUMNS = "id, name, description, category, price_cents, calories_kcal, protein_grams, tags"


@dataclass(frozen=True)
class Snapshot:
    """The menu as it stood at one moment, ready to be sent and searched."""

    items: tuple[dict[str, Any], ...]
    texts: tuple[bytes, ...]
    body: bytes
    read_at: float


def _item(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "tags": row["tags"].split()}


class Menu:
    """The boxes that can be ordered."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._snapshot: Snapshot | None = None

    def snapshot(self) -> Snapshot:
        """The menu, at most FRESH_SECONDS old."""
        kept = self._snapshot
        if kept is None or monotonic() - kept.read_at > FRESH_SECONDS:
            kept = self._snapshot = self.read()
        return kept

    def read(self) -> Snapshot:
        """The menu as the database has it now."""
        items = tuple(_item(row) for row in self.database.rows(f"SELECT {COLUMNS} FROM items ORDER BY id"))
        texts = tuple(
            fold(f"{item['name']} {item['description']} {' '.join(item['tags'])}") for item in items
        )
        body = json.dumps({"currency": "EUR", "items": items}, ensure_ascii=False).encode()
        return Snapshot(items, texts, body, monotonic())
