"""Where things lie: paths with any letter, folders that can't hold a lab, and a reader's home and TMPDIR."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

import pytest
import uv

from devops_lab.commands import doctor
from devops_lab.errors import BadInput
from devops_lab.lab import Lab
from devops_lab.model import Pool
from devops_lab.phases.build import Build
from devops_lab.phases.test import Test
from devops_lab.pipeline.hook import Pipeline
from devops_lab.platform import places, variables
from tests.production import get, new_world, torn_down, with_agent
from tests.shoplab import commit, found
from tests.test_main import Copy

ODD = [
    "-C# a ; b ${HOME} 100% [x]* {y} & 'z' \"q\" $HOME \\ ! a:b, c?d=e .",
    "käse 🍱 名",
    "~",
    "deep/" * 50 + "down",
]


@pytest.mark.parametrize("name", ODD)
def test_a_shop_is_deployed_wherever_its_lab_lies(name: str, tmp_path: Path, templates: Path) -> None:
    """7a: uv took `#` for a comment, ` ; ` for a marker and `${X}` for a variable, in the wheel's path."""
    with torn_down(new_world(tmp_path / name, templates)) as world:
        control = with_agent(world, "1.0.0")
        world.store.put(Pool("v1", "1.0.0", 1, 100))
        control.wait_settled(60)
        assert get(control.url() + "/api/info")
        assert "orders" in world.engine.ask_database()[1]


def test_a_shop_is_built_tested_and_pushed_wherever_its_lab_lies(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The same for git, uv's builds, the compiler, pytest, and the hook's shell."""
    world = found(
        tmp_path / "C# a ; b ${X} 100% [x]* 'z' \"q\" $HOME \\ ! & {y} ä:b,c?d=e ", tmp_path_factory
    )
    report = Test(world).run(Build(world).run())
    assert report.passed, report.gate
    Pipeline(world).install_hook("delivery")
    commit(world, "docs: nothing")
    run, _ = Pipeline(world).push()
    assert run.ok, run.cause


# ---- the reader's locale
def copy_of_the_project(folder: Path) -> Copy:
    """A fresh clone, and a Python that has nothing installed."""
    venv.create(folder.with_name("bare"), with_pip=False, symlinks=True)
    return Copy(folder, folder.with_name("bare") / "bin/python")


@pytest.mark.parametrize("locale", ["LC_ALL=C", "LC_ALL=POSIX PYTHONUTF8=0", "LANG=C PYTHONCOERCECLOCALE=0"])
def test_a_clone_with_an_umlaut_starts_in_the_c_locale(locale: str, tmp_path: Path) -> None:
    """7f: Python before 3.13 reads an editable install's .pth in the locale's encoding, and ended there."""
    copied = copy_of_the_project(tmp_path / "läb 🍱")
    path = f"{Path(uv.find_uv_bin()).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG"))}
    for python in (copied.python, copied.folder / ".venv/bin/python"):
        done = subprocess.run(
            [str(python), "-m", "devops_lab", "doctor", "--lab", "ä"],
            cwd=copied.folder,
            env=environment | {"PATH": path} | dict(each.split("=") for each in locale.split()),
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout.splitlines()[-1])[0] == str(copied.folder / ".venv")


# ---- file systems
Mount = Callable[..., Path]


def devops_lab(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "devops_lab", *arguments]
    return subprocess.run(command, env=variables.command(), capture_output=True, text=True, timeout=60)


def read_only(folder: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)


def test_a_lab_on_a_noexec_file_system_is_refused_before_anything_is_made(mounted: Mount) -> None:
    """7b: native modules can't be loaded from there, and one test of the shop failed without a word."""
    folder = mounted("noexec")
    with pytest.raises(BadInput, match="mounted noexec") as refused:
        Lab.open(folder / "lab")
    assert "--lab" in refused.value.next_step
    assert list(folder.iterdir()) == []


def test_a_read_only_file_system_is_named(mounted: Mount) -> None:
    """7d: founding, opening, status and clean ended in tracebacks."""
    folder = mounted("rw")
    Lab.open(folder / "lab").close()
    read_only(folder)
    with pytest.raises(BadInput, match="Read-only file system"):
        Lab.open(folder / "another")
    for command in ("status", "clean"):
        done = devops_lab(command, "--lab", str(folder / "lab"))
        assert done.returncode in (1, 2), done.stdout
        assert "ead-only file system" in done.stderr
        assert "Traceback" not in done.stderr


LACKING = {
    "without symbolic links": ("pathlib.Path.symlink_to", errno.EPERM),
    "no file can be locked": ("fcntl.flock", errno.ENOLCK),
}


@pytest.mark.parametrize("lack", LACKING)
def test_a_file_system_that_lacks_something_is_named(
    lack: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """7e: vfat has no links, NFS may have no locks; what such a system answers is answered here."""
    what, number = LACKING[lack]

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(what, refuse)
    with pytest.raises(BadInput, match=lack):
        Lab.open(tmp_path / "lab")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [b"l\xe4b", b"two\nlines", b"\x1b[31m"])
def test_a_name_that_no_tool_can_pass_on_is_refused(name: bytes, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="control character, or bytes that are no UTF-8"):
        Lab.open(tmp_path / os.fsdecode(name))
    assert list(tmp_path.iterdir()) == []


def test_many_may_found_one_lab_at_a_moment(tmp_path: Path) -> None:
    """The lock is a file, since NFS locks no directory that is open for reading."""
    script = "import sys; from devops_lab import Lab; Lab.open(sys.argv[1]).close()"
    begun = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path / "lab")], stderr=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    said = [process.communicate()[1] for process in begun]
    assert [process.returncode for process in begun] == [0] * 4, said
    assert not [
        path for path in (tmp_path / "lab").iterdir() if path.name.startswith((".probe", ".founding"))
    ]


# ---- the agent's socket
@pytest.mark.parametrize("temporary", ["short", "of 120 characters"])
def test_the_agents_socket_lies_where_one_can_be_opened(
    temporary: str, tmp_path: Path, templates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a long path it went below TMPDIR, and the agent ended at once where that was long as well."""
    if temporary != "short":
        monkeypatch.setenv("TMPDIR", str(tmp_path / ("t" * 120)))
        (tmp_path / ("t" * 120)).mkdir()
        monkeypatch.setattr("tempfile.tempdir", None)
    with torn_down(new_world(tmp_path / ("long " * 20), templates)) as world:
        world.control.ensure()
        noted = world.control.noted()
        assert noted
        socket = Path(noted.socket)
        assert len(str(socket)) <= 100
        world.control.stop(production=True)
        assert not socket.parent.exists()


# ---- home and TMPDIR
@pytest.mark.parametrize("trouble", ["noexec", "read-only", "missing", "full"])
def test_a_tmpdir_that_cant_be_used_is_not(
    trouble: str, tmp_path: Path, mounted: Mount, monkeypatch: pytest.MonkeyPatch
) -> None:
    """7b: the lab of a run was founded in TMPDIR, where its tests could load no native module."""
    folder = tmp_path / "missing"
    if trouble != "missing":
        folder = mounted("noexec" if trouble == "noexec" else "size=1m")
    if trouble == "read-only":
        read_only(folder)
    monkeypatch.setenv("TMPDIR", str(folder))
    chosen = variables.child()["TMPDIR"]
    assert chosen != str(folder)
    assert places.why_not_temporary(chosen) == ""
    row = doctor.temporary_files()
    assert row.ok is None
    assert str(folder) in row.detail


def test_a_home_that_cant_be_written_to_costs_no_more_than_a_cache(
    tmp_path: Path, mounted: Mount, monkeypatch: pytest.MonkeyPatch
) -> None:
    """7c: uv could not make its cache, and the shop's build got the blame."""
    home = mounted("rw")
    read_only(home)
    monkeypatch.setattr("devops_lab.platform.places.HERE", tmp_path)
    monkeypatch.setenv("HOME", str(home))
    for name in ("XDG_CACHE_HOME", "XDG_DATA_HOME", "UV_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    kept = variables.child()
    assert kept["HOME"] == str(home)  # what can be read there still is
    assert kept["UV_CACHE_DIR"] == str(tmp_path / ".caches" / "uv")
    said = subprocess.run([uv.find_uv_bin(), "venv", str(tmp_path / "e")], env=kept, capture_output=True)
    assert said.returncode == 0, said.stderr
    row = doctor.caches()
    assert row.ok is None
    assert str(home) in row.detail


def test_a_venv_whose_python_is_out_of_reach_is_told_in_one_sentence(tmp_path: Path) -> None:
    """7d: .venv made by root from a Python below /root, called by another user: a traceback."""
    if os.geteuid() != 0:
        pytest.skip("becoming another user takes root")
    copied = copy_of_the_project(tmp_path / "clone")
    assert copied.call("doctor")[0] == 0
    hidden = tmp_path / "hidden"
    hidden.mkdir(mode=0o700)
    python = copied.folder / ".venv/bin/python"
    (hidden / "python").symlink_to(os.path.realpath(python))
    python.unlink()
    python.symlink_to(hidden / "python")
    for folder in tmp_path.parents:
        if "pytest-of" in str(folder):
            folder.chmod(0o755)
    tmp_path.chmod(0o755)
    done = subprocess.run(
        [
            "setpriv",
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            reachable_python(),
            "-m",
            "devops_lab",
            "status",
        ],
        cwd=copied.folder,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "which you can't reach" in done.stderr
    assert "Traceback" not in done.stderr


def reachable_python() -> str:
    for name in ("/usr/bin/python3", "/usr/local/bin/python3"):
        said = subprocess.run(
            [name, "-c", "import sys; print(sys.version_info >= (3, 11))"], capture_output=True
        )
        if said.stdout == b"True\n":
            return name
    pytest.skip("no Python 3.11 that every user can reach")
