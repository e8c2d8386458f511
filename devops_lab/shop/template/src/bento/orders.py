"""Orders: checked, priced on the server, and taken exactly once per idempotency key."""

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from bento import metrics
from bento.database import Database
from bento.problems import Problem

MAX_QUANTITY = 20
MAX_LINES = 10
MAX_KEY = 100
MAX_TEXT = 120
STEPS = (("ready", 600.0), ("preparing", 60.0), ("received", 0.0))


@dataclass(frozen=True)
class Line:
    """So many of one box."""

    item: int
    quantity: int


@dataclass(frozen=True)
class Wish:
    """What a customer asks for, checked but not yet priced."""

    lines: tuple[Line, ...]
    customer: str = ""
    note: str = ""

    def digest(self) -> str:
        """Tells a retry (same wish) from a key that is used twice."""
        lines = [[line.item, line.quantity] for line in self.lines]
        return hashlib.sha256(json.dumps([lines, self.customer, self.note]).encode()).hexdigest()


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _line(number: int, given: Any) -> Line:
    if not isinstance(given, dict) or not _whole(given.get("item")) or not _whole(given.get("quantity")):
        raise Problem(422, f"Line {number}: expected a whole number as item and as quantity.", line=number)
    if not 1 <= given["quantity"] <= MAX_QUANTITY:
        raise Problem(422, f"Line {number}: a quantity is 1 to {MAX_QUANTITY}.", line=number)
    return Line(given["item"], given["quantity"])


def check_key(key: str | None) -> str:
    """The idempotency key that each order must carry."""
    if not key or not key.strip():
        raise Problem(400, "The header Idempotency-Key is missing: a retry could order twice.")
    if len(key) > MAX_KEY:
        raise Problem(400, f"The header Idempotency-Key is longer than {MAX_KEY} characters.")
    return key.strip()


def check_body(body: bytes) -> Wish:
    """The request's body as a wish; raises Problem with what is wrong about it."""
    try:
        given = json.loads(body)
    except ValueError as error:
        raise Problem(400, f"The body is not JSON: {error}") from error
    lines = given.get("lines") if isinstance(given, dict) else None
    if not isinstance(lines, list) or not 1 <= len(lines) <= MAX_LINES:
        raise Problem(422, f"An order has 1 to {MAX_LINES} lines.")
    texts = [given.get(field, "") for field in ("customer", "note")]
    if not all(isinstance(text, str) and len(text) <= MAX_TEXT for text in texts):
        raise Problem(422, f"customer and note are texts of at most {MAX_TEXT} characters.")
    checked = tuple(_line(number, line) for number, line in enumerate(lines, 1))
    if len({line.item for line in checked}) != len(checked):
        raise Problem(422, "A box is on two lines: give its whole quantity on one.")
    return Wish(checked, *texts)


def status_of(age_seconds: float) -> str:
    """How far the kitchen is with an order of this age."""
    return next(name for name, since in STEPS if age_seconds >= since or since == 0.0)


class Orders:
    """The orders in the database."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def prices(self, lines: Sequence[Line]) -> dict[int, tuple[str, int]]:
        """Name and price in cents of each box that is ordered; raises Problem for unknown ones."""
        found: dict[int, tuple[str, int]] = {}
        for line in lines:
            query = "SELECT name, price_cents FROM items WHERE id = :id"
            for row in self.database.rows(query, {"id": line.item}):
                found[line.item] = (row["name"], row["price_cents"])
        unknown = [line.item for line in lines if line.item not in found]
        if unknown:
            raise Problem(422, f"Not on the menu: {', '.join(map(str, unknown))}.", unknown_items=unknown)
        return found

    def place(self, key: str, wish: Wish) -> tuple[dict[str, Any], bool]:
        """Take the order once; returns it, and whether it is new (False: a retry)."""
        with self.database.transaction():
            prices = self.prices(wish.lines)
            total = sum(prices[line.item][1] * line.quantity for line in wish.lines)
            new = {
                "id": uuid4().hex[:12],
                "key": key,
                "digest": wish.digest(),
                "customer": wish.customer,
                "note": wish.note,
                "total": total,
                "now": time.time(),
            }
            inserted = self.database.execute(
                "INSERT INTO orders"
                " (id, idempotency_key, body_digest, customer, note, total_cents, created_at)"
                " VALUES (:id, :key, :digest, :customer, :note, :total, :now)"
                " ON CONFLICT (idempotency_key) DO NOTHING",
                new,
            )
            if inserted.rowcount:
                self._insert_lines(new["id"], wish.lines, prices)
        if inserted.rowcount:
            metrics.ORDERS.inc()
        order = self.by_key(key)[0]
        digest = order.pop("body_digest")
        if digest != new["digest"]:
            raise Problem(409, "This Idempotency-Key was used for another order.")
        order["status"] = "received"  # a retry hears what the first answer said
        return order, bool(inserted.rowcount)

    def _insert_lines(self, order: str, lines: Sequence[Line], prices: dict[int, tuple[str, int]]) -> None:
        for position, line in enumerate(lines, 1):
            self.database.execute(
                "INSERT INTO order_lines (order_id, position, item_id, quantity, unit_price_cents)"
                " VALUES (:order, :position, :item, :quantity, :price)",
                {
                    "order": order,
                    "position": position,
                    "item": line.item,
                    "quantity": line.quantity,
                    "price": prices[line.item][1],
                },
            )

    def by_id(self, identity: str) -> dict[str, Any]:
        """One order; raises Problem where there is none."""
        found = self._read("id = :value", identity)
        if not found:
            raise Problem(404, f"There is no order {identity[:40]!r}.")
        found[0].pop("body_digest")
        return found[0]

    def by_key(self, key: str) -> list[dict[str, Any]]:
        """The order with this idempotency key: none or one."""
        return self._read("idempotency_key = :value", key)

    def _read(self, where: str, value: str) -> list[dict[str, Any]]:
        orders = self.database.rows(
            "SELECT id, idempotency_key, body_digest, customer, note, total_cents, created_at"
            f" FROM orders WHERE {where} ORDER BY created_at",
            {"value": value},
        )
        for order in orders:
            order["status"] = status_of(time.time() - order["created_at"])
            order["lines"] = self.database.rows(
                "SELECT l.item_id AS item, i.name, l.quantity, l.unit_price_cents FROM order_lines l"
                " JOIN items i ON i.id = l.item_id WHERE l.order_id = :id ORDER BY l.position",
                {"id": order["id"]},
            )
        return orders
