"""What a reader's environment does to us: nothing, and no secret of it reaches what the lab starts."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

import devops_lab
from devops_lab import __main__
from devops_lab.errors import BuildFailed
from devops_lab.model import Pool, Replica
from devops_lab.phases.build import Build
from devops_lab.phases.operate import Operate
from devops_lab.phases.test import Test
from devops_lab.pipeline.hook import Pipeline
from devops_lab.platform import variables
from devops_lab.platform.context import LabContext
from devops_lab.platform.engines.environments import environment, uv_program
from devops_lab.platform.git import git
from devops_lab.platform.processes import processes_of
from devops_lab.production.rollout import unwell
from devops_lab.production.verify import ask
from devops_lab.workbook import kernel
from tests.cases.hostile import HOSTILE, MAY_PASS, SECRET
from tests.engines.test_environments import lock, wheel
from tests.production import new_world, torn_down, with_agent
from tests.shoplab import commit, found
from tests.test_main import PINS, ROOT, Copy, where
from tests.test_workbook import outputs_of, write_notebook

PACKAGE = Path(devops_lab.__file__).parent
NOWHERE = "http://reader:hidden@127.0.0.1:9/simple"
DUMP = "import json, os; print(json.dumps(dict(os.environ)))"
EVERY: dict[str, Callable[[], dict[str, str]]] = {
    "child": variables.child,
    "fetcher": variables.fetcher,
    "agent": variables.agent,
    "command": variables.command,
    "reader": variables.reader,
}


@pytest.fixture(scope="module")
def hostile() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in HOSTILE.items():
            patch.setenv(name, value)
        yield


def leaked(environ: dict[str, str], *allowed: str) -> set[str]:
    """The reader's variables that got through as they were."""
    same = {name for name, value in HOSTILE.items() if environ.get(name) == value}
    secrets = {name for name, value in environ.items() if SECRET in value}
    return (same - set(allowed)) | secrets


def code() -> Iterator[tuple[Path, ast.AST]]:
    """Every node of every module of the package, without the shop's own."""
    for path in PACKAGE.rglob("*.py"):
        if "template" not in path.parts:
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                yield path, node


# ---- the lists
@pytest.mark.parametrize("who", EVERY)
def test_nothing_that_steers_programs_is_let_through(who: str, hostile: None) -> None:
    fetches = {*MAY_PASS} if who in ("fetcher", "command", "reader") else set()
    desktop = {name for name in HOSTILE if name.startswith("JUPYTER_")} | {"LANGUAGE", "LC_ALL"}
    kept = EVERY[who]()
    assert leaked(kept, *fetches, *(desktop if who == "reader" else ())) == set()
    assert kept["LC_ALL"] == "C.UTF-8" or who == "reader"
    assert kept["PATH"] == os.environ["PATH"]


def test_the_language_of_a_desktop_stays_where_it_can_write_every_letter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("locale.getencoding", lambda: "UTF-8")
    monkeypatch.setenv("LANG", "de_DE.UTF-8")
    monkeypatch.delenv("LC_ALL", raising=False)
    assert variables.reader()["LANG"] == "de_DE.UTF-8"
    assert "LC_ALL" not in variables.reader()
    monkeypatch.setattr("locale.getencoding", lambda: "ANSI_X3.4-1968")
    monkeypatch.setenv("LC_ALL", "C")
    assert variables.reader()["LC_ALL"] == "C.UTF-8"


def test_addresses_of_the_engine_and_of_the_team_go_to_the_agent_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    theirs = {"DEVOPS_LAB_NOTIFY": f"slack://{SECRET}", "DOCKER_HOST": "unix:///nowhere.sock"}
    for name, value in theirs.items():
        monkeypatch.setenv(name, value)
    assert theirs.items() <= variables.agent().items() & variables.command().items()
    assert not theirs.keys() & (variables.child().keys() | variables.fetcher().keys())


def test_no_module_starts_a_program_with_the_readers_whole_environment() -> None:
    """A new call without `env` would inherit all of it again."""
    bare = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}"
        for path, node in code()
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in ("subprocess.run", "subprocess.Popen", "commands.run", "commands.start")
        and "env" not in {word.arg for word in node.keywords}
    ]
    assert bare == []


# ---- production
@pytest.fixture(scope="module")
def production(
    templates: Path, hostile: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LabContext]:
    """Agent, proxy and two replicas, started from the hostile environment."""
    with torn_down(new_world(tmp_path_factory.mktemp("labs") / "my läb", templates)) as world:
        with_agent(world, "1.0.0")
        world.store.put(Pool("v1", "1.0.0", 2, 100))
        world.control.wait_settled(60)
        yield world


def test_no_secret_is_in_any_process_of_production(production: LabContext) -> None:
    """1g: JUPYTERHUB_API_TOKEN was in agent, proxy and replicas: in the hands of whatever the shop runs."""
    with Operate(production).load(5, 30):
        found = {" ".join(p.cmdline()): p.environ() for p in processes_of(production.root)}
    for part in ("devops_lab.platform.agent", "envoy", "bento serve", "traffic.customers"):
        assert any(part in line for line in found), part
    assert {line: leaked(environ) for line, environ in found.items() if leaked(environ)} == {}


def test_a_proxy_in_the_environment_is_never_asked_for_production(production: LabContext) -> None:
    """1a: with http_proxy set and no no_proxy, every deployment was refused: "/healthz does not answer"."""
    assert [unwell(replica) for replica in production.store.all(Replica)] == ["", ""]
    assert ask(f"{production.control.url()}/api/info")[0] == 200


def test_a_readers_own_request_to_the_shop_passes_the_proxy_by(
    production: LabContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{production.control.url()}/api/info"
    monkeypatch.setattr(
        "urllib.request._opener", None
    )  # made at its first use, it keeps that moment's proxies
    for name in ("no_proxy", "NO_PROXY"):  # another test may have opened a lab in this process
        monkeypatch.setenv(name, "localhost")
    with pytest.raises(OSError, match="Connection refused"):
        urlopen(url, timeout=5)
    for name, value in variables.past_proxies().items():  # as Lab.open does
        monkeypatch.setenv(name, value)
    with urlopen(url, timeout=30) as answer:
        assert answer.status == 200
    assert os.environ["no_proxy"] == "localhost,127.0.0.1,::1"
    assert variables.past_proxies()["no_proxy"] == os.environ["no_proxy"]


def test_only_one_module_asks_by_http_and_none_by_urllib() -> None:
    allowed = {"web.py", "loops.py", "containers.py"}  # a closed loop on one connection; an engine's socket
    for path, node in code():
        names = [name.name for name in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        asked = {*names, node.module} if isinstance(node, ast.ImportFrom) else {*names}
        assert not asked & {"urllib.request", "urlopen", "requests"}, path
        assert "http.client" not in asked or path.name in allowed, path


# ---- git, builds, tests, pushes
@pytest.fixture(scope="module")
def shop(hostile: None, tmp_path_factory: pytest.TempPathFactory) -> LabContext:
    return found(tmp_path_factory.mktemp("labs") / "ein Läb", tmp_path_factory)


def test_builds_and_tests_run_as_ever_and_see_no_secret(
    shop: LabContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1b, 1c, 1d: PYTEST_ADDOPTS and COVERAGE_FILE failed the tests; NODE_OPTIONS failed the build."""
    built, tested = tmp_path / "built.json", tmp_path / "tested.json"
    if compiler := shutil.which("cc"):
        shim = tmp_path / "cc"
        shim.write_text(f"#!/bin/sh\n{sys.executable} -c '{DUMP}' > {built}\nexec {compiler} \"$@\"\n")
        shim.chmod(0o755)
        monkeypatch.setenv("CC", str(shim))
    text = f"import json, os, pathlib\n\ndef test_env():\n    pathlib.Path({str(tested)!r}).write_text("
    commit(shop, "test: its environment", "tests/unit/test_env.py", text + "json.dumps(dict(os.environ)))\n")
    report = Test(shop).run(Build(shop).run())
    assert report.passed, report.gate
    assert report.coverage_percent > 80
    assert leaked(json.loads(tested.read_text("utf-8"))) == set()
    if compiler:
        assert leaked(json.loads(built.read_text("utf-8"))) == set()


def test_a_push_from_such_a_terminal_runs_the_pipeline(shop: LabContext) -> None:
    Pipeline(shop).install_hook("delivery")
    git(shop.shop, "rm", "--quiet", "pyproject.toml")
    git(shop.shop, "commit", "--quiet", "-m", "fix: nothing to build")
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    push = ["git", "push", "origin", "main"]
    done = subprocess.run(push, cwd=shop.shop, env=own, capture_output=True, text=True, check=False)
    assert "remote: build FAILED" in done.stderr
    assert "Traceback" not in done.stderr
    kept = subprocess.run(
        [sys.executable, "-IS", variables.__file__, "-c", DUMP], capture_output=True, check=True
    )
    assert leaked(json.loads(kept.stdout), *MAY_PASS) == set()


# ---- the commands
def test_a_command_and_its_kernels_are_free_of_it(hostile: None, tmp_path: Path) -> None:
    """As `python3 -m devops_lab run` starts: it becomes itself anew, and its notebooks see nothing."""
    (tmp_path / "notebooks").mkdir()
    write_notebook(
        tmp_path / "notebooks/00-welcome.ipynb", DUMP, "import matplotlib.pyplot\nassert __debug__"
    )
    script = (
        "import pathlib\nfrom devops_lab.platform import settings\n"
        "from devops_lab.workbook import run as workbook\n"
        f"settings.project_root = lambda: pathlib.Path({str(tmp_path)!r})\n"
        f"assert workbook.run_workbook(out=pathlib.Path({str(tmp_path / 'out')!r})).ok"
    )
    start = [sys.executable, "-IS", variables.__file__, "-c", script]
    done = subprocess.run(start, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    seen = outputs_of(tmp_path / "out/00-welcome.ipynb")
    assert SECRET not in seen
    assert "/dev/null/nowhere" not in seen
    assert leaked(kernel.environment(tmp_path, Path("a.ipynb")), *MAY_PASS) == set()


def test_the_command_line_bears_what_acts_before_its_first_line(hostile: None) -> None:
    call = [sys.executable, "-W", "error", "-m", "devops_lab"]
    help_ = subprocess.run([*call, "--help"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (help_.returncode, "whole DevOps lifecycle" in help_.stdout) == (0, True), help_.stderr
    status = [*call, "status", "--lab", "/dev/null/nowhere"]
    refused = subprocess.run(status, cwd=ROOT, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "There is no lab at /dev/null/nowhere" in refused.stderr


def test_it_does_not_become_itself_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["devops_lab", "--help"])
    monkeypatch.setattr(__main__, "main", lambda arguments: 0)
    starts: list[dict[str, str]] = []
    monkeypatch.setattr(variables, "start_anew", lambda command, kept: starts.append(kept))
    monkeypatch.setenv("ALL_PROXY", NOWHERE)
    monkeypatch.setenv("PYTHONPATH", "/dev/null/nowhere")
    monkeypatch.setenv("LC_ALL", "C")
    assert __main__.begin() == 0
    with pytest.MonkeyPatch.context() as again:
        for name in os.environ.keys() - starts[0].keys():
            again.delenv(name)
        for name, value in starts[0].items():
            again.setenv(name, value)
        assert __main__.begin() == 0
    assert len(starts) == 1


# ---- set-up, and what fetches packages
@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    venv.create(tmp_path / "bare", with_pip=False)
    return Copy(tmp_path / "Ein Übungs Ordner", tmp_path / "bare/bin/python")


def test_set_up_with_uv_bears_it(hostile: None, copy: Copy) -> None:
    code, output = copy.call("doctor")
    assert code == 0, output
    assert where(output)[2:] == ["doctor"]


def test_set_up_with_pip_bears_it(hostile: None, copy: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    """1e: PIP_USER=1, or PYTHONWARNINGS=error: "pip did not finish (network? disk full?)"."""
    said = subprocess.run([uv_program(), "--version"], env=variables.child(), capture_output=True, text=True)
    copy.pin(*PINS, f"uv=={said.stdout.split()[1]}")
    home = copy.folder.parent / "home"
    (home / ".config/pip").mkdir(parents=True)
    given = Path.home() / ".config/pip/pip.conf"
    words = given.read_text("utf-8") if given.is_file() else ""
    (home / ".config/pip/pip.conf").write_text(f"{words}\n[install]\nuser = true\n")
    for name, value in {"HOME": str(home), "PIP_CACHE_DIR": str(Path.home() / ".cache/pip")}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(Copy, "path", os.defpath)
    code, output = copy.call("doctor")
    assert code == 0, output
    assert where(output)[2:] == ["doctor"]


STEERING = {
    "UV_INDEX_URL": (NOWHERE, "http://***@127.0.0.1:9/simple"),
    "UV_DEFAULT_INDEX": ("no address", "no address"),
    "UV_OFFLINE": ("1", "1"),
    "UV_HTTP_TIMEOUT": ("soon", "soon"),
    "UV_FIND_LINKS": ("/dev/null/nowhere", "/dev/null/nowhere"),
    "HTTPS_PROXY": (NOWHERE, "http://***@127.0.0.1:9/simple"),
    "all_proxy": ("socks5://127.0.0.1:9", "socks5://127.0.0.1:9"),
}


@pytest.mark.parametrize("name", STEERING)
def test_what_led_a_fetch_astray_is_named_without_passwords(
    name: str, copy: Copy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1f: junk in UV_INDEX_URL: "Check the network and the lock file", and a password on the screen."""
    value, shown = STEERING[name]
    for variable, text in {
        name: value,
        "UV_CACHE_DIR": str(tmp_path / "empty"),
        "UV_HTTP_RETRIES": "0",
    }.items():
        monkeypatch.setenv(variable, text)
    with pytest.raises(BuildFailed, match=rf"{name}=") as refused:
        environment(tmp_path, lock(tmp_path), wheel(tmp_path, "one"), tmp_path / "env")
    assert f"{name}={shown}" in refused.value.next_step
    code, output = copy.call("doctor")
    assert code == 1
    assert f"{name}={shown}" in output
    assert "hidden" not in output + str(refused.value)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("ProxyError('Cannot connect to proxy.')", "https_proxy=http://p:1"),
        ("invalid peer certificate: UnknownIssuer", "SSL_CERT_FILE=/c.pem"),
        ("ERROR: No matching distribution found for uv", "PIP_INDEX_URL=https://i/simple"),
        ("No space left on device", ""),
        ("error: a wheel is damaged", ""),
        (None, "SSL_CERT_FILE=/c.pem, https_proxy=http://p:1, PIP_INDEX_URL=https://i/simple"),
    ],
)
def test_only_what_fits_the_failure_is_named(
    words: str | None, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in variables.fetcher().keys() - variables.child().keys():
        monkeypatch.delenv(name)
    told = {"SSL_CERT_FILE": "/c.pem", "https_proxy": "http://p:1", "PIP_INDEX_URL": "https://i/simple"}
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    assert set(variables.blamed(words).split(", ")) == set(named.split(", "))
