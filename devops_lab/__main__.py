"""`python3 -m devops_lab COMMAND`: set up what is missing, then do it. Standard library only.

Where everything that pyproject.toml asks for is importable (conda, pip, an active environment), the command
just runs. Elsewhere `setup_venv` makes `.venv` beside the README, and the command goes on inside it.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

HELP = """usage: python3 -m devops_lab COMMAND [OPTIONS]

  run     run the notebooks from end to end      open    open them in JupyterLab
  test    run the project's tests                doctor  what is on this machine, what is missing
  status, trail, clean, bench ...

The first command makes .venv beside the README (about {download} to download);
after that, --help tells every command and option."""


def main(arguments: list[str]) -> int:
    """Run the command here if this Python has all it needs, else set up `.venv` and run it there."""
    if sys.version_info < (3, 11):  # noqa: UP036 (an older Python gets this far, and deserves an answer)
        print(f"The DevOps lab needs Python 3.11 or newer; {sys.executable} is {platform.python_version()}.")
        return 2
    from devops_lab.commands import setup_venv

    own = arguments[: arguments.index("--")] if "--" in arguments else arguments
    is_question = not own or not {"--help", "-h"}.isdisjoint(own)
    tests = own[:1] == ["test"] and not is_question
    complete, inside = setup_venv.is_complete(tests), setup_venv.is_inside()
    if complete if inside else is_satisfied(setup_venv.ROOT, tests):
        from devops_lab.commands.cli import main as command_line

        command_line()  # exits with the command's code
    elif not complete and is_question:
        print(HELP.format(download=setup_venv.download()))
    else:
        here = tests and not complete and not inside and is_satisfied(setup_venv.ROOT, tests=False)
        return set_up(tests, here) or go_on_inside(
            Path(sys.executable) if here else setup_venv.PYTHON, arguments
        )
    return 0


def set_up(tests: bool, here: bool) -> int:
    """Make `.venv` where it is not complete; return 0, or the exit code after saying what went wrong.

    Args:
        tests: with what the tests need.
        here: instead, add that to the environment that is active, which has all else.
    """
    from devops_lab.commands import setup_venv

    try:
        setup_venv.add_tests() if here else setup_venv.set_up(tests)
    except KeyboardInterrupt:
        print("\nSet-up interrupted. Call the same command again; downloads are kept.", file=sys.stderr)
        return 130
    except (setup_venv.SetUpFailed, OSError) as problem:
        print(f"Set-up failed: {problem}\nThen call the same command again.", file=sys.stderr)
        return 1
    return 0


def is_satisfied(root: Path, tests: bool) -> bool:
    """Is every requirement of the project (and of its tests) installed here, in a fitting version?"""
    import tomllib
    from importlib.metadata import PackageNotFoundError, version

    project_file = root / "pyproject.toml"
    if not project_file.exists():  # installed as a wheel: pip saw to the requirements
        return True
    try:
        from packaging.requirements import Requirement

        project = tomllib.loads(project_file.read_text("utf-8"))["project"]
        lines = project["dependencies"] + (project["optional-dependencies"]["test"] if tests else [])
        wanted = [want for want in map(Requirement, lines) if not want.marker or want.marker.evaluate()]
        return all(want.specifier.contains(version(want.name), prereleases=True) for want in wanted)
    except (ImportError, PackageNotFoundError):
        return False


def go_on_inside(python: Path, arguments: list[str]) -> int:
    """Become the same command in `.venv` (Windows has no exec: a child there)."""
    command = [str(python), "-m", "devops_lab", *arguments]
    environment = {**os.environ, "PATH": f"{python.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}
    sys.stdout.flush()
    if os.name != "nt":
        os.execve(command[0], command, environment)
    return subprocess.run(command, env=environment, check=False).returncode


def begin() -> int:
    """Run the command line's command, free of what the reader's environment would do to Python."""
    if sys.version_info >= (3, 11):  # noqa: UP036 (as above)
        from devops_lab.platform import variables

        kept = variables.reader() if sys.argv[1:2] == ["open"] else variables.command()
        if kept != dict(os.environ):
            variables.start_anew(sys.orig_argv[1:], kept)
    return main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(begin())
