"""The rules of an order, without HTTP."""

import json

import pytest

from bento.orders import MAX_QUANTITY, Line, Wish, check_body, check_key, status_of
from bento.problems import Problem


def body(*lines, **more) -> bytes:
    return json.dumps(
        {"lines": [dict(zip(("item", "quantity"), line, strict=True)) for line in lines], **more}
    ).encode()


def test_a_good_order_is_read():
    assert check_body(body((1, 2), (3, 1), customer="Ada")) == Wish((Line(1, 2), Line(3, 1)), "Ada", "")


@pytest.mark.parametrize("quantity", [1, MAX_QUANTITY])
def test_quantities_at_the_limits_are_fine(quantity):
    assert check_body(body((1, quantity))).lines[0].quantity == quantity


@pytest.mark.parametrize("quantity", [0, -1, MAX_QUANTITY + 1, 1.5, "2", True, None])
def test_other_quantities_are_refused_with_the_line(quantity):
    with pytest.raises(Problem) as raised:
        check_body(body((1, 1), (2, quantity)))
    assert (raised.value.status, raised.value.extra) == (422, {"line": 2})


@pytest.mark.parametrize("given", [b"{}", b"[]", b'{"lines": []}', b'{"lines": 3}', b'{"lines": [1]}'])
def test_bodies_of_another_shape_are_refused(given):
    with pytest.raises(Problem) as raised:
        check_body(given)
    assert raised.value.status == 422


def test_what_is_not_json_is_a_bad_request():
    with pytest.raises(Problem) as raised:
        check_body(b"lunch, please")
    assert raised.value.status == 400


def test_a_box_on_two_lines_is_refused():
    with pytest.raises(Problem, match="two lines"):
        check_body(body((4, 1), (4, 2)))


def test_too_many_lines_are_refused():
    with pytest.raises(Problem, match="1 to 10 lines"):
        check_body(body(*((item, 1) for item in range(1, 12))))


def test_a_note_has_a_limit():
    with pytest.raises(Problem, match="at most 120"):
        check_body(body((1, 1), note="x" * 121))


@pytest.mark.parametrize("key", [None, "", "  ", "k" * 101])
def test_keys_that_are_none_are_refused(key):
    with pytest.raises(Problem) as raised:
        check_key(key)
    assert raised.value.status == 400


def test_a_different_wish_has_a_different_digest():
    wishes = [
        Wish((Line(1, 2),)),
        Wish((Line(2, 1),)),
        Wish((Line(1, 2),), "Ada"),
        Wish((Line(1, 2),), "", "Ada"),
    ]
    assert len({wish.digest() for wish in wishes}) == len(wishes)


@pytest.mark.parametrize(
    ("age_seconds", "status"), [(0, "received"), (-5, "received"), (60, "preparing"), (600, "ready")]
)
def test_the_kitchen_moves_on(age_seconds, status):
    assert status_of(age_seconds) == status
