"""The command line: help, exit codes, and errors that are told, never thrown at the reader."""

from __future__ import annotations

import json
import re
import resource
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from devops_lab import errors
from devops_lab.commands import cli
from devops_lab.lab import Lab
from devops_lab.model import Check
from devops_lab.platform import settings
from devops_lab.platform.variables import command

COMMANDS = [
    command.name or command.callback.__name__ for command in cli.app.registered_commands if command.callback
]


def call(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    env = command() | variables
    root = Path(cli.__file__).parents[2]
    line = [sys.executable, "-m", "devops_lab", *arguments]
    return subprocess.run(line, capture_output=True, text=True, env=env, cwd=root, timeout=120, check=False)


def main(*arguments: str) -> int:
    """Run a command in this process and return its exit code."""
    with pytest.raises(SystemExit) as end:
        cli.main(list(arguments))
    return int(end.value.code or 0)


def test_all_commands_are_there() -> None:
    known = {"run", "open", "notebooks", "doctor", "status", "trail", "export", "clean", "test"}
    assert set(COMMANDS) == known


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_is_documented(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command, "--help") == 0
    said = capsys.readouterr().out
    assert "Usage: devops-lab" in said
    lines = [line for line in said.splitlines() if line.startswith("  -")]
    assert all(len(line.split(maxsplit=1)) > 1 for line in lines)


def test_help_is_quick_and_loads_nothing_heavy() -> None:
    code = "import sys\nfrom devops_lab.commands import cli\n"
    code += "try: cli.main(['--help'])\nexcept SystemExit: pass\n"
    code += "heavy = 'rich', 'papermill', 'nbformat', 'docker', 'matplotlib', 'IPython'\n"
    code += "print([m for m in heavy if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_help_keeps_its_bar_of_cpu() -> None:
    """0.4 s of CPU; the best of three, because this machine may be busy."""
    spent = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert call("--help").returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(spent) < 0.4, spent


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.BadInput, 2),
        (errors.NotALab, 2),
        (errors.LabInUse, 2),
        (errors.PortTaken, 2),
        (errors.MissingTool, 3),
        (errors.EngineUnavailable, 3),
        (errors.DiskFull, 3),
        (errors.ChecksFailed, 1),
        (errors.TimedOut, 1),
    ],
)
def test_exit_codes(error: type[errors.LabError], code: int) -> None:
    assert cli.exit_code(error("so")) == code


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["run", "--engine", "podman"], "no engine 'podman'"),
        (["run", "--pace", "quik"], "Did you mean 'quick'?"),
        (["run", "--only", "deplyo"], "Did you mean"),
        (["run", "--only", "plan", "-p", "nonsense"], "NAME=VALUE"),
        (["run", "--nonsense"], "No such option"),
        (["nonsense"], "No such command"),
        (["trail"], "Missing argument"),
        (["export"], "Missing argument"),
        (["open", "--no-browser", "--port", "70000"], "1 to 65535"),
    ],
)
def test_bad_input_is_told_and_exits_with_2(arguments: list[str], told: str) -> None:
    done = call(*arguments)
    assert done.returncode == 2, done.stderr
    assert told in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", [["status"], ["clean"], ["trail", "1.0.0"], ["run", "--only", "plan"]])
def test_a_folder_that_is_no_lab_is_left_alone(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    assert main(*command, "--lab", str(tmp_path)) == 2
    assert "is not a lab" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_newer_lab_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / settings.MARKER).write_text("format = 99\n")
    assert main("clean", "--lab", str(tmp_path)) == 2
    assert "newer version" in capsys.readouterr().err
    assert tmp_path.exists()


def test_a_port_that_is_taken_is_told() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = call("open", "--no-browser", "--port", str(port))
    assert done.returncode == 2
    assert f"Port {port} can't be used" in done.stderr


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = call("status", "--lab", str(tmp_path), DEVOPS_LAB_DEBUG="1")
    assert "Traceback" in done.stderr


def test_doctor_reports_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    main("doctor", "--json")
    rows: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    assert {"name", "ok", "detail", "what_to_do"} == set(rows[0])


def test_doctor_exits_with_3_when_something_needed_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    from devops_lab.commands import doctor

    monkeypatch.setattr(doctor, "examine", lambda: [Check("git", False, "not found", "Install it.")])
    assert main("doctor") == 3
    monkeypatch.setattr(doctor, "examine", lambda: [Check("cores", None, "1", "More.")])
    assert main("doctor") == 0


def test_status_and_clean_of_a_lab(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "lab"
    Lab.open(root).close()
    assert main("status", "--lab", str(root), "--json") == 0
    assert json.loads(capsys.readouterr().out)["agent"] is False
    assert main("status", "--lab", str(root)) == 0
    assert "engine" in capsys.readouterr().out
    assert main("trail", "9.9.9", "--lab", str(root)) == 2
    assert main("clean", "--lab", str(root)) == 0
    assert not root.exists()
    assert main("clean", "--lab", str(root)) == 2


def test_notebooks_are_listed_and_taken_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "lab"
    at = ["--lab", str(root)]
    assert main("notebooks", "--restore", "all", *at) == 0
    (copy,) = (root / "notebooks").glob("06-*")
    started = copy.read_bytes()
    copy.write_bytes(started.replace(b"shop", b"shoe"))
    capsys.readouterr()
    assert main("notebooks", *at, "--json") == 0
    changes = json.loads(capsys.readouterr().out)
    assert [name for name, what in changes.items() if what] == ["06-deploy"]
    assert main("notebooks", "--restore", "deploy", *at) == 0
    assert "kept as" in capsys.readouterr().out
    assert copy.read_bytes() == started
    Lab.open(root).close()
    for wrong in (["--with-lab"], ["--restore", "06", "--with-lab"], ["--restore", "deplyo"]):
        assert main("notebooks", *wrong, *at) == 2
    assert main("clean", *at) == 0
    assert f"Your notebooks stay in {root / 'notebooks'}" in capsys.readouterr().out
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/one.txt").touch()
    assert main("open", "--lab", str(tmp_path / "thesis")) == 2
    assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["one.txt"]


def test_test_hands_arguments_to_pytest(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def pretend(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        assert "PYTHONDONTWRITEBYTECODE" not in options["env"]
        return subprocess.CompletedProcess(command, codes.pop(0))

    codes = [0, 1, 4, 5, 0, 0]
    monkeypatch.setattr(subprocess, "run", pretend)
    assert [main("test", "-k", "deploy", "-x", "--help-me") for _ in range(4)] == [0, 1, 2, 2]
    assert asked[0][1:] == ["-m", "pytest", "-k", "deploy", "-x", "--help-me"]
    assert (main("test"), main("test", "bench", "--once")) == (0, 0)
    assert asked[-2][3:] == cli.AT_A_TIME
    assert asked[-1][3:] == [cli.BENCH, "--once"]


def test_test_runs_the_projects_tests() -> None:
    done = call(
        "test", "-q", "tests/test_doctor.py::test_the_table_marks_what_is_needed_and_what_is_optional"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def test_open_serves_on_loopback_with_its_token_on(tmp_path: Path) -> None:
    from urllib.error import HTTPError
    from urllib.request import urlopen

    from tests.patience import until

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = command() | {f"JUPYTER_{n}_DIR": str(tmp_path / n) for n in ("CONFIG", "DATA", "RUNTIME")}
    call = [sys.executable, "-m", "devops_lab", "open", "--no-browser", "--port", str(port)]
    call += ["--lab", str(tmp_path / "lab")]
    with (tmp_path / "log").open("w") as log:
        root = Path(cli.__file__).parents[2]
        server = subprocess.Popen(call, env=env, cwd=root, stdout=log, stderr=log, start_new_session=True)
        try:

            def answers() -> int:
                assert server.poll() is None, (tmp_path / "log").read_text()
                try:
                    return int(urlopen(f"http://127.0.0.1:{port}/api/status", timeout=2).status)
                except HTTPError as error:
                    return error.code
                except OSError:
                    return 0

            assert until(answers, "JupyterLab") == 403
            said, *more = (tmp_path / "log").read_text().splitlines()
            assert not [line for line in more if "Forbidden" not in line and "403 GET" not in line]
            assert "leave this window open, Ctrl-C" in said
            page = urlopen(said.split()[3], timeout=60).read().decode()
            assert re.search(r'"disabledExtensions": \[[^]]*:announcements"', page)
            server.send_signal(signal.SIGINT)
            server.wait(60)
        finally:
            server.kill()
            server.wait()
    assert (tmp_path / "lab/notebooks/00-welcome.ipynb").exists()
