"""The contract with the platform and the callers, over a real socket to a real server process."""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading

import pytest


class Server:
    """One `bento serve` on a free port."""

    def __init__(self, database, **more):
        environment = {
            **os.environ,
            **more,
            "DATABASE_URL": f"sqlite:///{database}",
            "BENTO_RELEASE": "4.5.6",
            "BENTO_REPLICA": "contract-1",
        }
        command = [sys.executable, "-m", "bento", "serve", "--port", "0"]
        self.process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        self.logs = []
        while True:
            line = self.process.stdout.readline()
            assert line, f"the server ended with {self.process.wait()}: {self.logs}"
            self.logs.append(line)
            if running := re.search(r"running on http://127.0.0.1:(\d+)", line):
                self.port = int(running[1])
                break
        # A full pipe would stop the server: somebody has to read on.
        self.reader = threading.Thread(target=lambda: self.logs.extend(self.process.stdout), daemon=True)
        self.reader.start()

    def request(self, method, path, body=None, headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return response.status, response.headers, response.read()
        finally:
            connection.close()

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(10)
        self.reader.join(10)
        self.process.stdout.close()
        return code


@pytest.fixture(scope="module")
def servers(migrated, tmp_path_factory):
    """Server processes that share a database: none yet."""
    database = shutil.copy(migrated, tmp_path_factory.mktemp("contract") / "bento.db")
    started = []
    yield database, started
    for server in started:
        server.stop()


@pytest.fixture
def server(servers):
    """A running server: the one of the test before, unless that one ended it."""
    database, started = servers
    if not started or started[-1].process.poll() is not None:
        started.append(Server(database))
    return started[-1]


@pytest.mark.parametrize(
    ("path", "content_type"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/api/menu", "application/json"),
        ("/api/search?q=soba", "application/json"),
        ("/api/info", "application/json"),
        ("/healthz", "application/json"),
        ("/readyz", "application/json"),
        ("/metrics", "text/plain; version=0.0.4; charset=utf-8"),
        ("/static/style.css", "text/css; charset=utf-8"),
    ],
)
def test_what_the_platform_and_the_page_ask_for_is_there(server, path, content_type):
    status, headers, _ = server.request("GET", path)
    assert (status, headers["content-type"], headers["x-release"]) == (200, content_type, "4.5.6")


def test_an_item_has_these_fields(server):
    item = json.loads(server.request("GET", "/api/menu")[2])["items"][0]
    assert set(item) >= {
        "id",
        "name",
        "description",
        "category",
        "price_cents",
        "calories_kcal",
        "protein_grams",
        "tags",
    }


def test_an_order_has_these_fields(server):
    body = json.dumps({"lines": [{"item": 7, "quantity": 1}]})
    status, _, answer = server.request("POST", "/api/orders", body, {"Idempotency-Key": "contract-1"})
    order = json.loads(answer)
    assert status == 201
    assert set(order) >= {
        "id",
        "idempotency_key",
        "customer",
        "note",
        "total_cents",
        "created_at",
        "status",
        "lines",
    }
    assert set(order["lines"][0]) >= {"item", "name", "quantity", "unit_price_cents"}


def test_a_problem_has_these_fields(server):
    status, headers, answer = server.request("POST", "/api/orders", "{}", {"Idempotency-Key": "contract-2"})
    assert (status, headers["content-type"]) == (422, "application/problem+json")
    assert set(json.loads(answer)) >= {"type", "title", "status", "detail"}


def test_the_metrics_that_the_platform_reads(server):
    text = server.request("GET", "/metrics")[2].decode()
    names = {line.split("{")[0].split(" ")[0] for line in text.splitlines() if not line.startswith("#")}
    assert names >= {
        "http_requests_total",
        "http_request_duration_seconds_bucket",
        "http_requests_in_flight",
        "bento_orders_total",
        "bento_build_info",
        "process_resident_memory_bytes",
        "process_cpu_seconds_total",
    }


def test_sigterm_finishes_what_is_in_flight(server):
    body = json.dumps({"lines": [{"item": 5, "quantity": 1}]}).encode()
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as caller:
        head = f"POST /api/orders HTTP/1.1\r\nHost: shop\r\nContent-Length: {len(body)}\r\n"
        caller.sendall(
            head.encode() + b"Idempotency-Key: last\r\nX-Request-Id: last-one\r\nExpect: 100-continue\r\n\r\n"
        )
        assert b" 100 " in caller.recv(1024)  # the handler runs, and waits for the body
        server.process.send_signal(signal.SIGTERM)
        caller.sendall(body)
        assert b" 201 " in caller.recv(4096).splitlines()[0]
    assert server.stop() in (0, -signal.SIGTERM)
    logged = [json.loads(line) for line in server.logs]
    order = next(entry for entry in logged if entry.get("request_id") == "last-one")
    assert set(order) >= {"time", "level", "message", "logger", "release", "replica"}
    assert (order["method"], order["endpoint"], order["status"]) == ("POST", "/api/orders", 201)
    assert order["seconds"] > 0


def test_it_says_that_it_is_about_to_stop_and_serves_on_meanwhile(servers):
    server = Server(servers[0], BENTO_DRAIN_SECONDS="60")
    try:
        assert server.request("GET", "/readyz")[0] == 200
        server.process.send_signal(signal.SIGTERM)
        while (ready := server.request("GET", "/readyz"))[0] == 200:
            pass
        assert (ready[0], json.loads(ready[2])["detail"]) == (503, "This replica is about to stop.")
        assert server.request("GET", "/api/menu")[0] == 200
        assert server.request("GET", "/healthz")[0] == 200
    finally:
        assert server.stop() in (0, -signal.SIGTERM)  # the second one does not wait
