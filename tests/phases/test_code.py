"""Code: real git in the shop's own repository; nothing that is not committed is ever lost."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import pytest

from devops_lab.errors import BadInput, LabError
from devops_lab.model import Check, LogLine, Replica, Service
from devops_lab.phases.code import Code
from devops_lab.planning.services import masked
from devops_lab.platform.context import LabContext
from devops_lab.platform.git import git, run
from devops_lab.platform.processes import created_at
from devops_lab.platform.settings import Settings
from devops_lab.platform.store import Store
from devops_lab.shop import found_repository


@pytest.fixture(scope="module")
def founded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shop's repository, made once and copied for each test."""
    root = tmp_path_factory.mktemp("founded")
    found_repository(root / "origin.git", root / "shop", date(2026, 3, 2))
    return root


@pytest.fixture
def code(tmp_path: Path, founded: Path) -> Code:
    for name in ("origin.git", "shop"):
        shutil.copytree(founded / name, tmp_path / name)
    git(tmp_path / "shop", "remote", "set-url", "origin", str(tmp_path / "origin.git"))
    return Code(LabContext(tmp_path, Settings(learner="Kim Lee"), Store(tmp_path / "lab.db")))


def state(code: Code) -> tuple[str, ...]:
    """All that must not change when something is refused."""
    return (
        git(code.shop, "for-each-ref", "--format=%(refname) %(objectname)", "refs/heads"),
        git(code.world.origin, "rev-parse", "main"),
        code.current(),
        git(code.shop, "status", "--porcelain"),
        git(code.shop, "diff"),
    )


def of(checks: list[Check], name: str) -> Check:
    return next(check for check in checks if check.name == name)


def test_a_prepared_change_goes_all_the_way_to_the_origin(code: Code) -> None:
    start = code.head()
    code.branch("work/dietary-filter")
    applied = code.apply("dietary-filter")
    assert applied.author != "Kim Lee"  # its developer wrote it
    assert code.apply("dietary-filter") == applied  # safe to repeat
    assert [check.name for check in code.review() if not check.ok] == []
    merged = code.merge("work/dietary-filter")
    assert merged.parents == [start.id, applied.id]
    assert merged.author == "Kim Lee"
    assert git(code.world.origin, "rev-parse", "main") == merged.id
    assert code.current() == "main"
    assert code.head().short == merged.id[:8]
    assert code.log(1, "work/dietary-filter")[0] == applied
    kinds = [event.kind for event in code.store.events() if event.phase == "code"]
    assert kinds == [
        "code.committed",
        "code.merged",
    ]
    trail = [row[:3] for row in code.store.trail(f"commit:{merged.id}")]
    assert (f"commit:{merged.id}", "merges", f"commit:{applied.id}") in trail
    assert any(relation == "implements" and parent.startswith("item:") for _, relation, parent in trail)


def test_the_learners_own_work(code: Code) -> None:
    code.branch("mine")
    path = code.write("src/bento/menü.py", "BOXES = 3\n")
    assert code.uncommitted() == ["src/bento/menü.py"]
    commit = code.commit("feat: three boxes for BENTO-41")
    assert (commit.author, commit.subject) == ("Kim Lee", "feat: three boxes for BENTO-41")
    assert abs(commit.t - time.time()) < 60
    assert path.read_text("utf-8") == "BOXES = 3\n"
    assert ("item:BENTO-41") in [row[2] for row in code.store.trail(f"commit:{commit.id}")]
    with pytest.raises(BadInput, match="nothing to commit"):
        code.commit("feat: again")
    with pytest.raises(BadInput, match="needs a message"):
        code.commit(" ")


def test_the_graph_knows_branches_tags_and_a_merge_that_is_half_done(code: Code) -> None:
    start, before = code.head(), code.graph().count
    for name, text in (("mine", "one\n"), ("theirs", "two\n")):
        code.checkout("main")
        code.branch(name)
        code.write("README.md", text)
        code.commit(f"docs: {name}")
    run(code.shop, "merge", "mine")
    graph = code.graph(3)
    assert (graph.count, len(graph.commits), graph.branch) == (before + 2, 3, "theirs")
    assert graph.refs[graph.head] == ["heads/theirs"]
    assert {"heads/main", "remotes/origin/main", "tags/v1.0.0"} <= set(graph.refs[start.id])
    assert (graph.under_way, graph.conflicts) == ("merge", ["README.md"])
    assert graph.refs[graph.incoming] == ["heads/mine"]


@pytest.mark.parametrize("path", ["../lab.db", "/etc/hosts", ".git/config", ".", "src/../.git/hooks/x"])
def test_only_files_of_the_shop_are_written(code: Code, path: str) -> None:
    with pytest.raises(BadInput, match="no file of the shop"):
        code.write(path, "x")


def test_uncommitted_work_is_never_lost(code: Code) -> None:
    code.branch("work/dietary-filter")
    code.apply("dietary-filter")
    code.write("README.md", "mine\n")
    code.write("new.txt", "also mine\n")
    before = state(code)
    attempts: list[Any] = [
        lambda: code.checkout("main"),
        lambda: code.branch("other"),
        lambda: code.apply("daily-special"),
        lambda: code.merge(),
    ]
    for attempt in attempts:
        with pytest.raises(LabError, match=r"README\.md, new\.txt would be at risk[\s\S]*git stash"):
            attempt()
        assert state(code) == before
    assert (code.shop / "new.txt").read_text("utf-8") == "also mine\n"


def test_a_conflict_leaves_everything_as_it_was(code: Code) -> None:
    code.branch("left")
    code.write("README.md", "left\n")
    code.commit("docs: left")
    code.checkout("main")
    code.branch("right")
    code.write("README.md", "right\n")
    code.commit("docs: right")
    code.merge("left")
    code.checkout("right")
    before = state(code)
    conflict = of(code.review(), "merges")
    assert not conflict.ok
    assert "README.md" in conflict.detail
    with pytest.raises(LabError, match=r"right does not merge: README\.md"):
        code.merge("right")
    assert state(code) == before
    assert not (code.shop / ".git" / "MERGE_HEAD").exists()
    assert len(code.store.events(kind="code.merged")) == 1


def test_a_push_that_the_origin_refuses_undoes_the_merge(code: Code) -> None:
    code.branch("mine")
    code.write("README.md", "mine\n")
    code.commit("docs: mine")
    hook = code.world.origin / "hooks" / "pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho closed for lunch >&2\nexit 1\n", encoding="utf-8")
    hook.chmod(0o755)
    before = state(code)
    with pytest.raises(LabError, match="closed for lunch"):
        code.merge("mine")
    assert state(code) == before
    hook.unlink()
    assert code.merge("mine").subject == "Merge branch 'mine'"


def test_a_merge_takes_up_what_others_pushed(code: Code, tmp_path: Path) -> None:
    git(tmp_path, "clone", "--quiet", "origin.git", "other")
    (tmp_path / "other" / "THEIRS").write_text("x\n", encoding="utf-8")
    git(tmp_path / "other", "add", ".")
    git(tmp_path / "other", "commit", "--quiet", "-m", "docs: theirs")
    git(tmp_path / "other", "push", "--quiet", "origin", "main")
    code.branch("mine")
    code.write("MINE", "y\n")
    code.commit("docs: mine")
    code.merge()
    assert git(code.world.origin, "ls-tree", "--name-only", "main", "MINE", "THEIRS").split() == [
        "MINE",
        "THEIRS",
    ]


def test_names_that_are_not_there(code: Code) -> None:
    with pytest.raises(BadInput, match="Did you mean 'main'"):
        code.checkout("mian")
    with pytest.raises(BadInput, match="Did you mean 'dietary-filter'"):
        code.apply("dietary-filte")
    with pytest.raises(BadInput, match="no branch 'nowhere'"):
        code.merge("nowhere")
    with pytest.raises(BadInput, match="has nothing that main doesn't have"):
        code.merge("main")
    for name in ("a b", "-x", "main", ""):
        with pytest.raises(BadInput, match="no name for a new branch"):
            code.branch(name)
    assert code.checkout("v1.0.0").id == git(code.shop, "rev-parse", "v1.0.0^{commit}")


def test_branch_again_keeps_work_and_renews_what_was_merged(code: Code) -> None:
    code.branch("mine")
    code.write("A", "a\n")
    commit = code.commit("docs: a")
    code.checkout("main")
    code.branch("mine")
    assert code.head() == commit
    merged = code.merge("mine")
    code.branch("mine")
    assert code.head() == merged


NEW = "src/bento/migrations/0099_x.sql"
CASES = [
    ("commit messages", "changed stuff", "README.md", "x\n"),
    ("commit messages", f"docs: {'x' * 80}", "README.md", "x\n"),
    ("tests", "feat: box", "src/bento/box.py", "BOX = 1\n"),
    ("tests kept", "test: skip", "tests/unit/test_x.py", "@pytest.mark.skip\ndef test_x(): ...\n"),
    ("migrations", "feat: drop", NEW, "DROP TABLE orders;\n"),
    ("migrations", "feat: unique", NEW, "CREATE UNIQUE INDEX one ON orders (name);\n"),
    ("migrations", "feat: null", NEW, "ALTER TABLE orders ADD COLUMN a TEXT NOT NULL;\n"),
    ("migrations", "feat: old", "src/bento/migrations/0001_menu.sql", "SELECT 1;\n"),
    ("migrations", "feat: number", "src/bento/migrations/0001_again.sql", "CREATE TABLE a (b TEXT);\n"),
    ("migrations", "feat: inline", "src/bento/box.py", 'SQL = "CREATE TABLE boxes (id TEXT)"\n'),
    ("no secrets", "feat: key", "src/bento/box.py", 'API_KEY = "s3cr3t-value"\n'),
    ("no secrets", "feat: url", "deploy.txt", "postgresql://bento:hunter22@db/bento\n"),
    ("configuration", "feat: env", "src/bento/box.py", 'import os\n\nWHO = os.environ["WHO"]\n'),
    ("configuration", "feat: host", "src/bento/box.py", 'URL = "http://localhost:8000/api"\n'),
    ("size", "docs: long", "README.md", "line\n" * 600),
    ("no leftovers", "feat: print", "src/bento/box.py", "print(1)\n"),
    ("sources only", "build: lib", "src/bento/_score.o", "binary\n"),
    ("sources only", "docs: big", "docs/big.txt", "x" * 300_000),
    ("Python parses", "feat: broken", "src/bento/box.py", "def box(:\n"),
    ("platform", "feat: photos for BENTO-46", "README.md", "x\n"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "message", "path", "text"), CASES)
def test_each_point_of_the_review_can_find_something(
    code: Code, name: str, message: str, path: str, text: str
) -> None:
    code.branch("mine")
    code.write(path, text)
    code.commit(message)
    check = of(code.review(), name)
    assert not check.ok, check
    assert check.detail
    assert "s3cr3t" not in check.detail


def test_a_good_branch_passes_every_point(code: Code) -> None:
    code.branch("mine")
    code.write("src/bento/box.py", '"""Boxes."""\n\nBOX = 1  # secret sauce inside\n')
    code.write(
        "tests/unit/test_box.py", "from bento import box\n\n\ndef test_box():\n    assert box.BOX == 1\n"
    )
    code.write(
        "src/bento/migrations/0099_box.sql", "ALTER TABLE orders ADD COLUMN box TEXT NOT NULL DEFAULT '';\n"
    )
    code.commit("feat: a box")
    checks = code.review("mine")
    assert len(checks) >= 7
    assert [check for check in checks if not check.ok] == []


def test_the_developers_features_pass_and_the_broken_migration_is_pointed_at(code: Code) -> None:
    for change in ("daily-special", "pickup-time"):
        code.checkout("main")
        code.branch(f"try/{change}")
        code.apply(change)
        assert [check for check in code.review() if not check.ok] == []
    code.checkout("main")
    code.branch("try/broken-migration")
    code.apply("broken-migration")
    check = of(code.review(), "existing data")
    assert not check.ok
    assert "0008_order_numbers.sql, line 9" in check.detail


# ---- services
class Shop(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = f'{{"path": "{self.path}", "id": "{self.headers["X-Request-Id"]}"}}'.encode()
        self.send_response(503 if self.path == "/readyz" else 200)
        self.send_header("X-Release", "1.0.0")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def served(code: Code) -> Iterator[Code]:
    """A lab whose production answers HTTP (any server will do: what is tested is the one who asks)."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Shop)
    Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    code.world.__dict__["control"] = SimpleNamespace(keep=lambda: True, url=lambda: url)
    yield code
    server.shutdown()
    server.server_close()


def test_the_catalogue_names_what_the_text_asks_for(code: Code) -> None:
    names = [service.name for service in code.services()]
    assert {"database", "metrics", "logs", "health", "configuration"} <= set(names)
    assert all(service.summary and service.use for service in code.services())
    with pytest.raises(BadInput, match="Did you mean 'database'"):
        code.try_service("databse")


def test_before_production_is_up_each_service_says_so_and_what_to_do(code: Code) -> None:
    for service in code.services():
        answer = code.try_service(service.name)
        if service.name == "database":
            assert answer.ok
            assert "scratch" in answer.sent
            continue
        assert not answer.ok
        assert answer.received
        assert "catch_up" in answer.next_step


def test_the_database_of_production_is_opened_read_only(code: Code) -> None:
    import sqlite3

    file = Path(code.world.engine.database_url().removeprefix("sqlite:///"))
    file.parent.mkdir(parents=True, exist_ok=True)
    with sqlite3.connect(file) as db:
        db.execute("create table orders (id text)")
    db.close()
    answer = code.try_service("database")
    assert answer.ok
    assert re.match(r"SQLite 3\..*tables: orders", answer.received)
    assert answer.seconds > 0


def test_http_services_are_asked_through_the_proxy(served: Code) -> None:
    answer = served.try_service("proxy")
    assert answer.ok
    assert "/api/menu" in answer.received
    sent_id = re.search(r"try-\w+", answer.sent)
    assert sent_id
    assert sent_id[0] in answer.received
    assert "X-Release: 1.0.0" in answer.received
    refused = served.try_service("database"), served.try_service("health")
    assert all(each.ok for each in refused)


def test_an_error_and_a_closed_door_are_answers_too(served: Code) -> None:
    from devops_lab.planning.services import try_service

    answer = try_service(served.world, Service("ready", "s", "u", path="/readyz"))
    assert not answer.ok
    assert answer.received.startswith("503")
    served.world.__dict__["control"].url = lambda: "http://127.0.0.1:9"
    closed = try_service(served.world, Service("ready", "s", "u", path="/readyz"))
    assert not closed.ok
    assert "no answer" in closed.received


def test_configuration_shows_what_a_running_replica_has(code: Code) -> None:
    env = os.environ | {
        "BENTO_RELEASE": "1.0.0",
        "BENTO_ADMIN_TOKEN": "abc",
        "DATABASE_URL": "postgresql://a:b@c/d",
    }
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, env=env)
    try:
        code.store.put(
            Replica("r1", "blue", "1.0.0", "127.0.0.1", 1, child.pid, created_at(child.pid), "healthy")
        )
        answer = code.try_service("configuration")
    finally:
        child.communicate(b"\n")
    assert (
        answer.received == "BENTO_ADMIN_TOKEN=***\nBENTO_RELEASE=1.0.0\nDATABASE_URL=postgresql://a:***@c/d"
    )
    assert masked("DATABASE_URL", "sqlite:////a/b.db") == "DATABASE_URL=sqlite:////a/b.db"


def test_logs_show_the_newest_line(code: Code) -> None:
    code.store.add_logs(
        [LogLine(1.0, "INFO", "old"), LogLine(2.0, "ERROR", "new", "r1", "1.0.0", request_id="q")]
    )
    answer = code.try_service("logs")
    assert answer.received == "ERROR new release=1.0.0 replica=r1 request_id=q"
