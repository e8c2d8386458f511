"""Health, metrics, the page, and errors, over the application."""

import re

from bento.config import Config


def test_alive_and_ready(shop):
    assert shop.get("/healthz").json() == {"status": "ok"}
    assert shop.get("/readyz").json() == {"status": "ready"}


def test_not_ready_while_a_migration_is_missing_but_alive(shop, database):
    database.execute("DELETE FROM migrations WHERE name LIKE '0003%'")
    answer = shop.get("/readyz")
    assert answer.status == 503
    assert "0003_orders.sql" in answer.json()["detail"]
    assert shop.get("/healthz").status == 200


def test_not_ready_without_a_database(tmp_path, runner, shop):
    lost = type(shop)(Config(database_url=f"sqlite:///{tmp_path}/no/such/folder/bento.db"), runner)
    assert lost.get("/readyz").status == 503
    assert lost.get("/healthz").status == 200


def test_info_says_what_runs(shop):
    answer = shop.get("/api/info").json()
    assert (answer["release"], answer["replica"]) == ("1.2.3", "test-1")
    assert answer["scorer"] in ("c", "python")


def test_every_answer_names_release_and_request(shop):
    answer = shop.get("/nosuch", {"X-Request-Id": "my-id"})
    assert answer.status == 404
    assert (answer.headers["x-release"], answer.headers["x-request-id"]) == ("1.2.3", "my-id")


def test_a_request_id_that_could_break_a_log_is_replaced(shop):
    assert re.fullmatch("[0-9a-f]{32}", shop.get("/", {"X-Request-Id": 'x" y'}).headers["x-request-id"])


def test_the_wrong_method_is_a_problem(shop):
    assert shop.call("DELETE", "/api/menu").status == 405


def test_metrics_count_by_route_not_by_path(shop):
    shop.get("/api/orders/one")
    shop.get("/api/orders/two")
    text = shop.get("/metrics").body.decode()
    assert 'endpoint="/api/orders/{id}",method="GET",status="404"' in text
    assert "/api/orders/one" not in text
    assert 'bento_build_info{release="1.2.3"} 1.0' in text


def test_a_crash_in_a_handler_is_a_logged_500(shop, monkeypatch, caplog):
    def fail() -> None:
        raise RuntimeError("no rice left")

    monkeypatch.setattr(shop.app.app.state.menu, "snapshot", fail)
    answer = shop.get("/api/menu", {"X-Request-Id": "req-9"})
    assert (answer.status, answer.json()["request_id"]) == (500, "req-9")
    assert "no rice left" in caplog.text
    assert "no rice left" not in answer.body.decode()


def test_the_page_has_only_relative_addresses(shop):
    page = shop.get("/").body.decode()
    addresses = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert addresses
    assert not [each for each in addresses if each.startswith(("/", "http"))]


def test_the_page_says_what_runs(shop):
    page = shop.get("/").body.decode()
    assert '<b id="release">1.2.3</b>' in page
    assert '<b id="replica">test-1</b>' in page


def test_the_page_says_when_its_program_was_not_built(shop, monkeypatch, tmp_path):
    from bento import app

    (tmp_path / "index.html").write_bytes((app.STATIC / "index.html").read_bytes())
    monkeypatch.setattr(app, "STATIC", tmp_path)
    assert 'role="alert" >' in app.render_page(shop.config)
    (tmp_path / "app.js").touch()
    assert 'role="alert" hidden>' in app.render_page(shop.config)
