"""What was run: the transcript of Code, Build and Release does the same again, in a plain shell."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from devops_lab import views
from devops_lab.model import Release
from devops_lab.phases.build import Build
from devops_lab.phases.code import Code
from devops_lab.phases.release import ReleasePhase
from devops_lab.platform import cells, commands
from devops_lab.platform.context import LabContext
from devops_lab.platform.engines.heard import line
from devops_lab.platform.git import commit_file, git
from devops_lab.platform.variables import HOME
from tests.shoplab import found, say_tested

NOTES = "# Notes\n\nIt costs $5, `really`;\nEOF\n  \"and\" 'so' on \\\n"


@pytest.fixture
def world(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> LabContext:
    return found(tmp_path / "ein Läb", tmp_path_factory)


def replay(text: str, root: Path) -> str:
    """Run a transcript in a shell that has nothing but what the transcript asks for."""
    kept = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], "LC_ALL": "C.UTF-8"}
    told = {"LAB": str(root), "VENV": sys.prefix, "LESSON": str(HOME), "PYTHONPATH": str(HOME)}
    done = subprocess.run(
        ["bash"], input=text, env=kept | told, cwd="/", capture_output=True, text=True, timeout=100
    )
    return done.stderr


def work(world: LabContext) -> Release:
    """Code, Build and Release, as the first notebooks have them; Test is said to be green."""
    code = Code(world)
    code.branch("work/notes")
    code.write("docs/notes.md", NOTES)
    code.write("docs/no line end.txt", "it's")
    code.commit("feat: notes\n\nfor 'people' who pay $5")
    code.apply("euro-prices")
    code.merge()
    commit_file(world.shop, "README.md", "# Shop\n", "docs: shorter")
    git(world.shop, "push", "--quiet", "origin", "main")
    artifact = Build(world).run()
    say_tested(world, artifact)
    return ReleasePhase(world).run()


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_transcript_does_the_same_again(world: LabContext, tmp_path: Path) -> None:
    copy = tmp_path / "copy of the lab"
    shutil.copytree(world.root, copy, symlinks=True)
    (templates := copy / "work" / "templates").unlink()  # the session's own: whole, or not there yet
    shutil.copytree(world.work / "templates", templates, symlinks=True)
    views.commands(world)  # what ran until here is not asked for
    release = work(world)
    text = views.commands(world).alt
    assert str(world.root) not in text
    assert sys.prefix not in text
    said = replay(text, copy)
    assert "No such file" not in said
    for name in ("main", "main^{tree}", release.tag):
        assert git(copy / "origin.git", "rev-parse", name) == git(world.origin, "rev-parse", name), said
    assert f"sha256:{sha256(copy / release.path)}" == release.digest, said


def test_the_last_call_is_this_cell_else_the_newest_that_ran_something(
    world: LabContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cell(number: int, *args: str) -> str:
        monkeypatch.setattr(cells, "number", lambda: number)
        if args:
            git(world.shop, *args)
        return views.commands(world).alt

    first = cell(7, "tag", "seven")
    assert first.splitlines()[-1].strip().startswith("git tag seven")
    assert cell(8) == cell(9) == first
    assert "git tag nine" in (text := cell(9, "tag", "nine"))
    assert "seven" not in text
    text = cell(10, "log", "-1")
    assert "git log -1" in text  # nothing that changes: what looks is shown
    git(world.shop, "tag", "ten")
    assert "git log" not in (text := views.commands(world).alt).split("left out")[0]
    assert "1 that only look are left out (git log)" in text
    assert "git log -1" in views.commands(world, all=True).alt


STARTS = re.compile(r"subprocess\.(?:run|Popen|check_output|call)\(|os\.(?:kill|killpg)\(|\.send_signal\(")
BEFORE_ANY_LAB = ("__main__.py", "commands", "workbook", "platform/clock.py")  # what sets up, and opens


def test_whoever_starts_a_process_records_it() -> None:
    package = HOME / "devops_lab"
    paths = [path for path in package.rglob("*.py") if package / "shop" / "template" not in path.parents]
    starting = {str(path.relative_to(package)): path.read_text("utf-8") for path in paths}
    silent = [
        name
        for name, text in starting.items()
        if STARTS.search(text) and not re.search(r"\b(?:commands\.(?:ran|signalled)\(|def ran)", text)
    ]
    assert [name for name in silent if not name.startswith(BEFORE_ANY_LAB)] == []


def test_another_lab_of_this_process_has_its_own(
    world: LabContext, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = found(tmp_path / "other", tmp_path_factory)
    views.commands(world)
    git(other.shop, "tag", "theirs")
    assert views.commands(world).caption.endswith("will show here.")


def test_no_secret_is_recorded(world: LabContext) -> None:
    views.commands(world)
    env = dict(os.environ, TOKEN="s3cret", DATABASE_URL="postgresql://bento:s3cret@db/bento")
    commands.run(["true", "https://me:s3cret@index/simple"], env=env, cwd=world.root)
    text = views.commands(world).alt
    assert "s3cret" not in text
    assert "DATABASE_URL='postgresql://***@db/bento'" in text


def test_what_the_reader_is_to_find_out_stays_sealed(world: LabContext) -> None:
    views.commands(world)
    with commands.sealed():
        git(world.shop, "tag", "memory-leak")
    git(world.shop, "tag", "harmless")
    text = views.commands(world).alt
    assert "sealed: it is for you to find out" in text
    assert "memory-leak" not in text
    assert "harmless" in text


def test_how_it_ended_is_said(world: LabContext) -> None:
    views.commands(world)
    commands.run(["false"], env=os.environ)
    with pytest.raises(FileNotFoundError):
        commands.run(["no-such-program"], env=os.environ)
    with (world.root / "log").open("ab") as out:
        sleeper = commands.start(["sleep", "60"], env=os.environ, cwd=world.root, stdout=out)
    sleeper.kill()
    commands.signalled(sleeper.pid, 9)
    sleeper.wait()
    text = views.commands(world).alt
    assert re.search(r"^false  # .*exit code 1$", text, re.MULTILINE)
    assert re.search(r"^no-such-program  # .*did not come to its end$", text, re.MULTILINE)
    assert f'sleep 60 >> "$LAB/log" 2>&1 &  # process {sleeper.pid}\n' in text
    assert f"kill -KILL {sleeper.pid}  # Python" in text


@pytest.mark.parametrize(
    ("call", "query", "words"),
    [
        (f"POST /containers/{'ab' * 32}/kill", {"signal": "HUP"}, "docker kill --signal HUP abababababab"),
        ("POST /images/host:5/bento/push", {"tag": "1.1.0"}, "docker push host:5/bento:1.1.0"),
        ("POST /images/create", {"fromImage": "a", "tag": "sha256:1"}, "docker pull a@sha256:1"),
        ("POST /services/s1/update", {"version": "7", "rollback": "previous"}, "docker service rollback s1"),
        ("POST /build", {"t": "b", "networkmode": "none"}, "docker build --tag b --network none -"),
        ("DELETE /networks/n1", {}, "docker network rm n1"),
    ],
)
def test_a_call_of_the_engine_is_a_docker_command(call: str, query: dict[str, str], words: str) -> None:
    method, path = call.split(" ")
    assert line(method, path, query, None) == words.split(" ")


def test_a_call_without_a_command_is_told_without_its_environment() -> None:
    body = b'{"Image": "bento", "Env": ["POSTGRES_PASSWORD=s3cret"]}'
    told = line("POST", "/containers/create", {"name": "lab-1"}, body)
    assert told == ["POST", "/containers/create", "(name lab-1, image bento)"]
