"""The review checklist: what operations looks at before a change is merged, as checks of the real diff."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from devops_lab.model import Check
from devops_lab.platform.git import git, run

MOST_LINES = 400  # beyond it reviewers miss much (SmartBear's study at Cisco, 2006)
MOST_BYTES = 200_000
SUBJECT = re.compile(
    r"(feat|fix|docs|style|refactor|perf|test|build|ci|chore|revert)(\([\w./ -]+\))?!?: \S.{2,}"
)
SECRET = re.compile(
    r"""(?ix) -----BEGIN\ [A-Z ]*PRIVATE\ KEY | \bAKIA[0-9A-Z]{16}\b | \bgh[pousr]_\w{30,} | ://[^/\s:@]+:[^/\s:@{]+@
    | \b(?:password|passwd|secret|api_?key|access_?token|auth_?token)\b ["']? \s* [:=] \s*
      ["'][^"'\s{}]{6,}["']"""
)
FIXED = re.compile(
    r"""["'](?:https?://(?:localhost|127\.|\d+\.\d+)|(?:sqlite|postgresql)://|/(?:home|srv|var|tmp|etc)/)"""
)
LEFTOVER = re.compile(r"\b(?:breakpoint|print)\(|\bpdb\b|console\.log\(|\bdebugger\b|\b(?:TODO|FIXME|XXX)\b")
DESTRUCTIVE = re.compile(
    r"(?i)\bdrop\s+(?:table|column)\b|\brename\b|\bdelete\s+from\b|\btruncate\b|\balter\s+column\b"
)
CODE = ("src/", "native/", "frontend/")


@dataclass(frozen=True)
class Diff:
    """A branch against main, as the checks see it."""

    repo: Path
    branch: str
    subjects: list[str]
    status: dict[str, str]  # path -> A, M, D, …
    added: list[tuple[str, int, str]]  # path, line, text
    changed_lines: int
    binary: list[str]

    def lines(self, *folders: str) -> list[tuple[str, int, str]]:
        return [each for each in self.added if each[0].startswith(folders)]

    def text(self, path: str) -> str:
        return git(self.repo, "show", f"{self.branch}:{path}")


def read_diff(repo: Path, branch: str) -> Diff:
    """What a branch adds to main since they parted."""
    span = f"main...{branch}"
    subjects = git(repo, "log", "--no-merges", "--format=%s", f"main..{branch}").splitlines()
    names = git(repo, "diff", "--no-renames", "--name-status", span).splitlines()
    status = {path: how for how, path in (line.split("\t") for line in names)}
    numbers = [line.split("\t") for line in git(repo, "diff", "--no-renames", "--numstat", span).splitlines()]
    return Diff(
        repo, branch, subjects, status, _added(git(repo, "diff", "--no-renames", "--unified=0", span)),
        sum(int(plus) + int(minus) for plus, minus, _ in numbers if plus != "-"),
        [path for plus, _, path in numbers if plus == "-"],
    )  # fmt: skip


def _added(diff: str) -> list[tuple[str, int, str]]:
    found, path, number, in_head = [], "", 0, True
    for line in diff.splitlines():
        if line.startswith("diff --git"):
            in_head = True
        elif in_head and line.startswith("+++ "):
            path = line[4:].removeprefix("b/").rstrip("\t")
        elif match := re.match(r"@@ -\S+ \+(\d+)", line):
            number, in_head = int(match[1]), False
        elif not in_head and line.startswith("+"):
            found.append((path, number, line[1:]))
            number += 1
    return found


def checklist(diff: Diff) -> list[Check]:
    """Go through all points."""
    return [point(diff) for point in POINTS]


def _where(found: list[tuple[str, int, str]]) -> str:
    """The first place, and how many more there are."""
    path, number, text = found[0]
    more = f", and {len(found) - 1} more" if len(found) > 1 else ""
    return f"{path}, line {number}: {text.strip()[:80]}{more}"


def _verdict(name: str, found: list[tuple[str, int, str]], fine: str) -> Check:
    return Check(name, not found, _where(found) if found else fine)


def message(diff: Diff) -> Check:
    wrong = [s for s in diff.subjects if not SUBJECT.fullmatch(s) or len(s) > 72]
    said = f"{len(diff.subjects)} conventional commit(s): the next version can be told from them"
    if wrong:
        said = f"{wrong[0]!r} is no conventional commit of at most 72 letters, such as 'fix: …'"
    return Check("commit messages", not wrong, said)


def tests(diff: Diff) -> Check:
    code = [path for path in diff.status if path.startswith(CODE)]
    touched = [path for path in diff.status if path.startswith("tests/") and diff.status[path] != "D"]
    if not code:
        return Check("tests", True, "no code changed")
    detail = f"{len(touched)} test file(s) changed" if touched else f"{code[0]} changed, and no test with it"
    return Check("tests", bool(touched), detail)


def tests_kept(diff: Diff) -> Check:
    gone = [path for path, how in diff.status.items() if path.startswith("tests/") and how == "D"]
    skipped = [each for each in diff.lines("tests/") if re.search(r"\b(skip|xfail)\b", each[2])]
    if gone:
        return Check("tests kept", False, f"{gone[0]} was removed")
    return _verdict("tests kept", skipped, "no test was removed or switched off")


def migrations(diff: Diff) -> Check:
    """A migration is new and only adds, because in a rollout two releases share the database."""
    files = {
        path: how for path, how in diff.status.items() if "/migrations/" in path and path.endswith(".sql")
    }
    if rewritten := [path for path, how in files.items() if how != "A"]:
        return Check("migrations", False, f"{rewritten[0]} has run in production: add a new one instead")
    there = git(diff.repo, "ls-tree", "-r", "--name-only", "main").splitlines()
    taken = {Path(path).name[:4]: path for path in there if "/migrations/" in path and path.endswith(".sql")}
    if twice := [path for path in files if Path(path).name[:4] in taken]:
        return Check("migrations", False, f"{twice[0]} has the number of {taken[Path(twice[0]).name[:4]]}")
    elsewhere = [
        each for each in diff.lines("src/") if each[0].endswith(".py")
        and re.search(r"(?i)\b(create|alter|drop)\s+(table|index|unique)", each[2])
    ]  # fmt: skip
    if elsewhere:
        return Check("migrations", False, f"schema changed outside a migration: {_where(elsewhere)}")
    risky = [each for each in diff.added if each[0] in files and _breaks(each[2])]
    fine = f"{', '.join(Path(f).name for f in files)} only adds" if files else "no schema change"
    return _verdict("migrations", risky, fine)


def existing_data(diff: Diff) -> Check:
    """A migration that copies or changes rows meets data that no test has."""
    moves = re.compile(r"(?i)\binsert\s+into\b.*\bselect\b|^\s*update\b.*\bset\b")
    found = [each for each in diff.added if each[0].endswith(".sql") and moves.search(each[2])]
    check = _verdict("existing data", found, "no migration touches rows that are there already")
    advice = f"{check.detail} (try it on a copy of production's data)"
    return check if check.ok else replace(check, detail=advice)


def _breaks(sql: str) -> bool:
    code = sql.split("--")[0]
    tightens = re.search(r"(?i)\bunique\s+index\b", code)
    adds = re.search(r"(?i)\badd\s+column\b.*\bnot\s+null\b", code) and not re.search(
        r"(?i)\bdefault\b", code
    )
    return bool(DESTRUCTIVE.search(code) or tightens or adds)


def secrets(diff: Diff) -> Check:
    found = [(path, line, "(not shown)") for path, line, text in diff.added if SECRET.search(text)]
    return _verdict("no secrets", found, f"{len(diff.added)} added lines hold no key, token or password")


def configuration(diff: Diff) -> Check:
    found = [
        (path, line, text) for path, line, text in diff.lines("src/")
        if path.endswith(".py") and not path.endswith("/config.py")
        and (FIXED.search(text) or re.search(r"\bos\.(environ|getenv)\b", text))
    ]  # fmt: skip
    return _verdict("configuration", found, "only bento.config reads the environment; no fixed address")


def size(diff: Diff) -> Check:
    detail = (
        f"{diff.changed_lines} lines in {len(diff.status)} files changed; over {MOST_LINES} much is missed"
    )
    return Check("size", diff.changed_lines <= MOST_LINES, detail)


def leftovers(diff: Diff) -> Check:
    found = [each for each in diff.lines("src/", "frontend/") if LEFTOVER.search(each[2])]
    return _verdict("no leftovers", found, "no print, breakpoint, TODO or console.log")


def products(diff: Diff) -> Check:
    suffixes = (".so", ".o", ".pyc", ".whl", ".db", ".log")
    kept = {path for path, how in diff.status.items() if how != "D"}
    found = [
        p
        for p in kept
        if p.endswith(suffixes) or p.startswith(("dist/", "build/")) or p.endswith("static/app.js")
    ]
    found += [path for path in diff.binary if path in kept and path not in found]
    found += [path for path in kept if path not in found and _bytes(diff, path) > MOST_BYTES]
    detail = f"{sorted(found)[0]} doesn't belong into git" if found else "no build products or binaries"
    return Check("sources only", not found, detail)


def _bytes(diff: Diff, path: str) -> int:
    return int(git(diff.repo, "cat-file", "-s", f"{diff.branch}:{path}"))


def parses(diff: Diff) -> Check:
    for path, how in diff.status.items():
        if path.endswith(".py") and how != "D":
            try:
                ast.parse(diff.text(path), path)
            except SyntaxError as error:
                return Check("Python parses", False, f"{path}, line {error.lineno}: {error.msg}")
    return Check("Python parses", True, "each changed module can be read; C and TypeScript are Build's job")


def merges(diff: Diff) -> Check:
    done = run(diff.repo, "merge-tree", "--write-tree", "--name-only", "--no-messages", "main", diff.branch)
    if done.returncode == 1:
        files = ", ".join(done.stdout.split()[1:])
        return Check("merges", False, f"main and this branch changed the same lines of {files}")
    if done.returncode:  # git before 2.38
        return Check("merges", True, "this git can't tell beforehand; the merge itself will")
    return Check("merges", True, "without conflict into main")


POINTS: tuple[Callable[[Diff], Check], ...] = (
    message, tests, tests_kept, migrations, existing_data, secrets, configuration, size, leftovers, products,
    parses, merges,
)  # fmt: skip
