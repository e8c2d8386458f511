"""Test: the shop's suite runs against what was built; it lowers the risk of bugs and guarantees nothing."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from devops_lab import shop
from devops_lab.delivery.suite import OnCase, run_suite
from devops_lab.errors import BadInput, BuildFailed
from devops_lab.model import Artifact, Bug, TestReport
from devops_lab.phases.build import Build
from devops_lab.platform.context import LabContext
from devops_lab.platform.git import git, identity
from devops_lab.platform.store import Store

KEPT = 5  # test folders that stay in the scratch space
NOTEBOOK = "04-test"  # whose faults are planted by default


@dataclass(frozen=True)
class Gate:
    """The bars of the quality gate.

    Args:
        coverage_percent: of the shop's lines and branches, at least.
        skipped: tests that may be skipped, at most.
        seconds: what the suite may take.
    """

    coverage_percent: float = 80.0
    skipped: int = 0
    seconds: float = 60.0


@dataclass(frozen=True)
class Planted:
    """A planted bug's result, kept by commit and change, because both decide it."""

    commit: str
    bug: Bug

    @property
    def key(self) -> str:
        return f"{self.commit}:{self.bug.change}"


class Test:
    """The phase Test of one lab."""

    __test__ = False  # not a test class, whatever pytest thinks of its name

    def __init__(self, world: LabContext, bars: Gate | None = None) -> None:
        self.world = world
        self.bars = bars or Gate()

    def run(self, artifact: Artifact | None = None, on_case: OnCase | None = None) -> TestReport:
        """Test a built wheel (default: the newest) away from its source tree; judge it at the gate.

        Args:
            artifact: what to test.
            on_case: called with each test as it ends; its seconds are then those since the one before.

        Raises:
            BadInput: nothing was built, or its file is gone.
            RegistryRefused: the wheel or its lock was changed since it was built.
            BuildFailed: the test tools can't be installed beside what production installs.
            TimedOut: the suite took far longer than the gate allows.
        """
        artifact = artifact or self.world.store.last(Artifact)
        if artifact is None or not (self.world.root / artifact.path).is_file():
            raise BadInput("There is no built wheel to test.", next_step="Build a commit first.")
        folder = self._folder(artifact)
        suite = run_suite(self.world, artifact, folder, self.world.root, self.bars.seconds * 2, on_case)
        report = TestReport(
            commit=artifact.commit,
            digest=artifact.digest,
            cases=suite.cases,
            coverage_percent=suite.coverage_percent,
            seconds=suite.seconds,
            t=self.world.store.now(),
            coverage=suite.coverage,
        )
        report = replace(report, gate=self.gate(report))
        self._record(report)
        return report

    def gate(self, report: TestReport) -> list[str]:
        """Why the quality gate is closed for a report; empty when it is open."""
        bars, why = self.bars, []
        if red := [c.name for c in report.cases if c.outcome in ("failed", "error")]:
            why.append(f"{len(red)} of {len(report.cases)} tests failed: {', '.join(red[:5])}")
        if not report.cases:
            why.append("no test ran")
        if report.coverage_percent < bars.coverage_percent:
            why.append(f"coverage is {report.coverage_percent:.1f} %, below {bars.coverage_percent:g} %")
        if (skipped := report.count("skipped")) > bars.skipped:
            why.append(f"{skipped} tests were skipped, more than {bars.skipped}")
        if report.seconds > bars.seconds:
            why.append(f"the suite took {report.seconds:.1f} s, more than {bars.seconds:g} s")
        return why

    def passing(self, artifact: Artifact) -> TestReport | None:
        """The newest green report of this artifact and commit: the same bytes need no second run.

        The commit counts too: one that only adds a test makes the same wheel, and is to be tested.
        """
        wanted = (artifact.digest, artifact.commit)
        found = [r for r in self.world.store.all(TestReport) if (r.digest, r.commit) == wanted and r.passed]
        return found[-1] if found else None

    def _folder(self, artifact: Artifact) -> Path:
        home = self.world.work / "tests"
        folder = home / f"{artifact.commit[:8]}-{artifact.digest[-8:]}"
        folder.mkdir(parents=True, exist_ok=True)
        folder.touch()
        others = [path for path in home.glob("*-*") if path != folder]  # clocks step: the newest may look old
        for old in sorted(others, key=lambda p: p.stat().st_mtime)[: 1 - KEPT]:
            shutil.rmtree(old, ignore_errors=True)
        return folder

    def _record(self, report: TestReport) -> None:
        store, subject = self.world.store, f"commit:{report.commit}"
        store.put(report)
        store.link(f"report:{report.key}", "test of", f"artifact:{report.digest}")
        verdict = "; ".join(report.gate) or f"{len(report.cases)} tests green, gate open"
        who, percent = self.world.settings.learner, round(report.coverage_percent, 1)
        passed = report.passed
        store.event("test", "test.done", subject, verdict, who=who, passed=passed, coverage_percent=percent)

    # ---- no guarantee: planted bugs
    def planted(
        self, changes: Sequence[str] | None = None, on_bug: Callable[[Bug], None] | None = None
    ) -> list[Bug]:
        """Plant each fault into a clone of main, build and test it: which ones does the suite catch?

        Args:
            changes: ids of prepared changes; default: the faults of this notebook. Results are
                kept by main's commit.
            on_bug: called with each result, known ones first.
        """
        base = git(self.world.shop, "rev-parse", "main")
        faults = [c.id for c in shop.changes() if c.notebook == NOTEBOOK and c.kind == "fault"]
        wanted = list(changes) if changes is not None else faults
        found: dict[str, Bug] = {}

        def one(change: str) -> None:
            found[change] = self._known(base, change)
            if on_bug:
                on_bug(found[change])

        with ThreadPoolExecutor(max_workers=2) as pool:
            for done in [pool.submit(one, change) for change in wanted]:
                done.result()
        caught = sum(bug.caught for bug in found.values())
        verdict, who = f"{caught} of {len(found)} planted bugs caught", self.world.settings.learner
        self.world.store.event("test", "test.planted", f"commit:{base}", verdict, who=who)
        return [found[change] for change in wanted]

    def _known(self, base: str, change: str) -> Bug:
        """A planted bug's result, from the store where main has not moved since."""
        known = self.world.store.get(Planted, f"{base}:{change}")
        bug = known.bug if known else self.plant(change, base=base)
        self.world.store.put(Planted(base, bug))
        return bug

    def what_a_new_test_changes(self, change: str, test: str) -> tuple[Bug, Bug]:
        """Plant a bug without and with a new test, and compare.

        Args:
            change: the id of the fault.
            test: the id of a change whose tests are added (its fix), or the text of a test module.
        """
        base = git(self.world.shop, "rev-parse", "main")
        is_change = test in {c.id for c in shop.changes()}
        new = {"tests_of": test} if is_change else {"new_test": test}
        return self._known(base, change), self.plant(change, base=base, **new)

    def plant(self, change: str = "", *, base: str = "main", tests_of: str = "", new_test: str = "") -> Bug:
        """Build and test main with a change, in a lab of its own that is removed afterwards.

        Args:
            change: the id of a prepared change; "" leaves main as it is.
            tests_of: the id of a change that brings its tests alone, on top.
            new_test: the text of one more test module.
        """
        self.world.work.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.world.work, prefix="planted-") as folder:
            root = Path(folder)
            scratch = LabContext(root, self.world.settings, Store(root / "lab.db"))
            clone = scratch.shop
            git(root, "clone", "--quiet", "--shared", "--no-checkout", str(self.world.shop), str(clone))
            git(clone, "checkout", "--quiet", "-B", "main", git(self.world.shop, "rev-parse", base))
            if change:
                shop.apply_change(clone, change)
            if tests_of:
                faulty = git(clone, "rev-parse", "HEAD")
                fixed = shop.apply_change(clone, tests_of)
                git(clone, "reset", "--quiet", "--hard", faulty)
                git(clone, "checkout", "--quiet", fixed, "--", "tests")
            if new_test:
                (clone / "tests/unit/test_new.py").write_text(new_test, encoding="utf-8")
            if tests_of or new_test:
                git(clone, "add", "tests")
                git(clone, "commit", "--quiet", "-m", "test: a new test", env=identity("learner"))
            try:
                artifact = Build(scratch, self.world.root).run("HEAD")
            except BuildFailed as error:
                return Bug(change, True, [error.wrong.splitlines()[0]], ["build"])
            finally:
                scratch.store.close()
            limit = self.bars.seconds * 2
            suite = run_suite(scratch, artifact, root / "test", self.world.root, limit, coverage=False)
        red = [c for c in suite.cases if c.outcome in ("failed", "error")]
        return Bug(change, bool(red), [c.name for c in red], sorted({c.suite for c in red}))
