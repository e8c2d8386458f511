"""Orders, over the application and a real database."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from bento.orders import Line, Wish
from bento.problems import Problem


def test_an_order_is_created_and_priced_by_the_server(shop):
    answer = shop.order([{"item": 1, "quantity": 2}, {"item": 3, "quantity": 1}])
    order = answer.json()
    assert answer.status == 201
    assert answer.headers["location"] == f"orders/{order['id']}"
    assert order["total_cents"] == 2 * 1290 + 1050
    assert order["status"] == "received"


def test_a_price_that_the_caller_sends_is_ignored(shop):
    assert (
        shop.order([{"item": 1, "quantity": 1, "price_cents": 1}], total_cents=1).json()["total_cents"]
        == 1290
    )


def test_an_order_can_be_read_again(shop):
    placed = shop.order([{"item": 2, "quantity": 1}], customer="Ada").json()
    assert shop.get(f"/api/orders/{placed['id']}").json() == placed
    assert shop.get("/api/orders?key=key-1").json() == {"orders": [placed]}


def test_an_old_order_is_ready(shop, database):
    placed = shop.order([{"item": 2, "quantity": 1}]).json()
    database.execute("UPDATE orders SET created_at = created_at - 3600")
    assert shop.get(f"/api/orders/{placed['id']}").json()["status"] == "ready"


def test_an_order_keeps_the_price_it_was_made_at(shop, database):
    placed = shop.order([{"item": 1, "quantity": 1}]).json()
    database.execute("UPDATE items SET price_cents = 9999 WHERE id = 1")
    assert shop.get(f"/api/orders/{placed['id']}").json()["lines"][0]["unit_price_cents"] == 1290


def test_an_order_that_is_not_there_is_a_problem(shop):
    answer = shop.get("/api/orders/nosuch")
    assert (answer.status, answer.headers["content-type"]) == (404, "application/problem+json")


def test_a_key_that_was_never_used_has_no_orders(shop):
    assert shop.get("/api/orders?key=nosuch").json() == {"orders": []}


def test_asking_for_orders_needs_a_key(shop):
    assert shop.get("/api/orders").status == 400


def test_a_retry_gets_the_same_answer_and_orders_once(shop, database):
    first = shop.order([{"item": 1, "quantity": 1}])
    second = shop.order([{"item": 1, "quantity": 1}])
    assert (first.status, second.status) == (201, 200)
    assert first.body == second.body
    assert database.rows("SELECT count(*) AS n FROM orders") == [{"n": 1}]


def test_a_retry_is_answered_although_time_has_passed(shop, database):
    first = shop.order([{"item": 1, "quantity": 1}]).json()
    database.execute("UPDATE orders SET created_at = created_at - 3600")
    assert shop.order([{"item": 1, "quantity": 1}]).json()["status"] == first["status"]


def test_a_key_for_another_order_is_a_conflict(shop):
    shop.order([{"item": 1, "quantity": 1}])
    answer = shop.order([{"item": 1, "quantity": 2}])
    assert answer.status == 409
    assert "Idempotency-Key" in answer.json()["detail"]


def test_an_order_without_a_key_is_refused(shop, database):
    answer = shop.call("POST", "/api/orders", b'{"lines": [{"item": 1, "quantity": 1}]}')
    assert answer.status == 400
    assert database.rows("SELECT count(*) AS n FROM orders") == [{"n": 0}]


def test_an_unknown_box_is_named_and_nothing_is_kept(shop, database):
    answer = shop.order([{"item": 1, "quantity": 1}, {"item": 4711, "quantity": 1}])
    assert answer.status == 422
    assert answer.json()["unknown_items"] == [4711]
    assert database.rows("SELECT count(*) AS n FROM orders") == [{"n": 0}]


def test_a_huge_body_is_refused(shop):
    assert shop.call("POST", "/api/orders", b" " * 70_000, {"Idempotency-Key": "k"}).status == 413


def test_many_at_once_with_one_key_order_once(orders, database):
    wish = Wish((Line(1, 1),))
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: orders.place("same", wish), range(8)))
    assert sum(is_new for _, is_new in results) == 1
    assert len({order["id"] for order, _ in results}) == 1
    assert database.rows("SELECT count(*) AS n FROM orders") == [{"n": 1}]


def test_a_failed_order_leaves_nothing_half_done(orders, database, monkeypatch):
    def fail(*_: object) -> None:
        raise RuntimeError("out of rice")

    monkeypatch.setattr(orders, "_insert_lines", fail)
    with pytest.raises(RuntimeError):
        orders.place("k", Wish((Line(1, 1),)))
    assert orders.by_key("k") == []


def test_a_conflict_does_not_change_the_first_order(orders):
    first, _ = orders.place("k", Wish((Line(1, 1),)))
    with pytest.raises(Problem):
        orders.place("k", Wish((Line(2, 5),)))
    assert orders.by_id(first["id"])["total_cents"] == first["total_cents"]
