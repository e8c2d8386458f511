"""The pipeline: three modes that stop where the text says, triggered by a push, fed back when they fail."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from devops_lab import views
from devops_lab.errors import BadInput, DeployRefused
from devops_lab.model import Artifact, PipelineRun, Step
from devops_lab.phases.build import Build
from devops_lab.phases.code import Code
from devops_lab.phases.deploy import Deploy
from devops_lab.phases.release import ReleasePhase
from devops_lab.pipeline.hook import Pipeline, Trigger, main
from devops_lab.pipeline.run import MODES, Run
from devops_lab.platform import locks
from devops_lab.platform.context import LabContext
from devops_lab.platform.control import teardown
from devops_lab.platform.git import git
from devops_lab.platform.processes import created_at, processes_of
from devops_lab.production.verify import ask, check_production
from devops_lab.shop import apply_change
from tests.shoplab import commit, found, say_tested

QUICK = "import bento.menu\n\ndef test_fine():\n    assert bento.menu\n"


@pytest.fixture
def world(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> LabContext:
    return found(tmp_path / "ein Läb", tmp_path_factory)


@pytest.fixture
def quick(world: LabContext) -> LabContext:
    """A lab whose shop has one quick test that covers the one module that counts."""
    git(world.shop, "rm", "-r", "--quiet", "tests")
    text = (world.shop / "pyproject.toml").read_text("utf-8")
    (world.shop / "pyproject.toml").write_text(
        text.replace('source_pkgs = ["bento"]', 'include = ["*/test_only.py"]')
    )
    commit(world, "test: only this one", "tests/unit/test_only.py", QUICK)
    return world


@pytest.fixture
def production(quick: LabContext) -> Iterator[LabContext]:
    """The quick lab with its first version in production."""
    artifact = Build(quick).run("v1.0.0")
    say_tested(quick, artifact)
    release_phase = ReleasePhase(quick)
    with locks.held(release_phase.lock):
        release_phase._publish(artifact, release_phase.next_version("v1.0.0"), tag=False, who="")
    try:
        Deploy(quick).run("1.0.0")
        yield quick
    finally:
        teardown(quick.root)
        assert not processes_of(quick.root)


def names(run: PipelineRun) -> list[str]:
    return [step.name for step in run.steps]


def test_the_modes_stop_where_the_text_says() -> None:
    assert {mode: phases[-1] for mode, phases in MODES.items()} == {
        "delivery": "test",
        "integration": "release",
        "deployment": "monitor",
    }


def test_delivery_by_push_ends_after_the_tests(quick: LabContext) -> None:
    pipeline = Pipeline(quick)
    pipeline.install_hook("delivery")
    commit(quick, "feat: lunch for two")
    run, said = pipeline.push()
    assert run.ok, run.cause
    assert names(run) == ["plan", "code", "build", "test"]
    assert all(step.ok for step in run.steps)
    assert "remote: test ok" in said
    assert "lunch for two" in run.steps[1].output
    assert run.digest == quick.store.last(Artifact).digest  # type: ignore[union-attr]
    assert ReleasePhase(quick).registry() == []
    assert run.lead_time_seconds == 0
    with pytest.raises(BadInput, match="nothing to push"):
        pipeline.push()


def merge_something(world: LabContext, name: str) -> None:
    code = Code(world)
    code.branch(f"work/{name}")
    code.write(f"{name}.md", "half-way")
    code.commit(f"docs: {name}")
    code.merge()


def test_what_the_hook_ran_stands_in_the_transcript(quick: LabContext) -> None:
    Pipeline(quick).install_hook("delivery")
    views.commands(quick)
    commit(quick, "feat: one more")
    Pipeline(quick).push()
    text = views.commands(quick).alt
    ours, theirs = text.split("# the pipeline, in origin's hook:\n", 1)
    assert "git push origin main" in ours + theirs
    assert "git commit" in ours
    assert 'uv" build --wheel' in theirs
    assert "pytest" in theirs
    assert "git push" not in views.commands(quick).alt  # shown once


def test_a_merge_tells_of_the_pipeline_that_it_set_off(quick: LabContext) -> None:
    Pipeline(quick).install_hook("delivery")
    with pytest.warns(UserWarning, match="continuous delivery of"):
        merge_something(quick, "armed")
    assert [run.mode for run in Pipeline(quick).runs()] == ["delivery"]


@pytest.mark.filterwarnings("error")
def test_the_hook_sleeps_once_the_notebook_that_set_it_has_ended(quick: LabContext) -> None:
    pipeline = Pipeline(quick)
    pipeline.install_hook("deployment")
    armed = quick.store.last(Trigger)
    assert armed
    with subprocess.Popen(["true"]) as kernel:
        quick.store.put(replace(armed, pid=kernel.pid, born=created_at(kernel.pid)))
    merge_something(quick, "asleep")
    assert pipeline.runs() == []
    with pytest.raises(BadInput, match="No pipeline listens"):
        pipeline.push()


def test_a_red_push_is_fed_back_and_releases_nothing(quick: LabContext) -> None:
    pipeline = Pipeline(quick)
    pipeline.install_hook("integration")
    commit(quick, "feat: broken", "tests/unit/test_red.py", "def test_red():\n    assert False\n")
    run, said = pipeline.push()
    assert (run.state, run.stopped_at) == ("failed", "test")
    assert names(run) == ["plan", "code", "build", "test"]
    assert "unit/test_red::test_red" in run.cause
    assert "remote: test FAILED" in said
    assert ReleasePhase(quick).registry() == []
    event = quick.store.events(kind="pipeline.failed")[0]
    assert "test_red" in event.message
    assert event.data["back_to"] == "code"
    apply_change(quick.shop, "syntax-error-ts")
    run, said = pipeline.push()
    assert run.stopped_at == "build"
    assert "frontend/app.ts:" in said


def test_integration_ends_with_a_release_or_says_why_not(quick: LabContext) -> None:
    told: list[Step] = []
    commit(quick, "feat: lunch for two")
    run = Pipeline(quick).run("integration", on_step=told.append)
    assert run.ok, run.cause
    assert names(run) == ["plan", "code", "build", "test", "release"] == [step.name for step in told]
    assert [r.version for r in ReleasePhase(quick).registry()] == ["1.1.0"]
    again = Pipeline(quick).run("integration")
    assert again.ok
    assert "released already" in again.steps[-1].output
    artifact = quick.store.last(Artifact)
    assert artifact
    other = replace(artifact, digest="sha256:" + "1" * 64)  # the same version, built again, has other bytes
    say_tested(quick, other)
    run_of_other = Run(quick, "integration", other.commit, "ada", None, 0.0)
    with pytest.raises(BadInput, match=r"1\.1\.0 already"):
        run_of_other._released(other, run_of_other.release.next_version(other.commit))
    commit(quick, "docs: words")
    run = Pipeline(quick).run("integration")
    assert run.ok
    assert run.stopped_at == "release"
    assert "nothing to release" in run.cause
    assert len(ReleasePhase(quick).registry()) == 1


def test_deployment_by_push_reaches_customers_and_red_never_does(production: LabContext) -> None:
    pipeline, url = Pipeline(production), production.control.url()
    pipeline.install_hook("deployment")
    commit(production, "feat: lunch for two")
    run, said = pipeline.push()
    assert run.ok, run.cause
    assert sorted(names(run)) == sorted(MODES["deployment"])
    assert ask(f"{url}/api/info")[:2] == (200, "1.1.0")
    assert 0 < run.push_seconds <= run.lead_time_seconds
    assert run.push_seconds < run.seconds + 5
    assert "version 1.1.0 serves" in said
    green = next(step for step in run.steps if step.name == "test")
    switch = next(s for s in Deploy(production).history()[-1].steps if s.name == "switch the traffic")
    assert switch.started >= green.started + green.seconds - 0.05  # the tests had the last word

    commit(production, "feat: broken", "tests/unit/test_red.py", "def test_red():\n    assert False\n")
    run, _ = pipeline.push()
    assert (run.state, run.stopped_at) == ("failed", "test")
    assert run.push_seconds == 0
    assert ask(f"{url}/api/info")[:2] == (200, "1.1.0")
    assert Deploy(production).current() == "1.1.0"
    assert [r.version for r in ReleasePhase(production).registry()] == ["1.0.0", "1.1.0"]
    with pytest.raises(DeployRefused, match=r"200 from 1\.1\.0"):
        check_production(url, "1.2.0")
    begun = len(Deploy(production).history())
    commit(
        production, "feat: a table", "src/bento/migrations/0099_more.sql", "CREATE TABLE more (id INTEGER);\n"
    )
    run, _ = pipeline.push()
    assert run.stopped_at == "test"
    assert len(Deploy(production).history()) == begun  # the schema doesn't change for what may never come


def test_what_operate_refuses_is_rolled_back(production: LabContext, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(url: str, version: str) -> str:
        raise DeployRefused(f"{version} is slow")

    monkeypatch.setattr("devops_lab.pipeline.run.check_production", refuse)
    commit(production, "feat: slow")
    run = Pipeline(production).run("deployment")
    assert run.stopped_at == "operate"
    assert Deploy(production).history()[-1].strategy == "rollback"
    assert ask(f"{production.control.url()}/api/info")[:2] == (200, "1.0.0")


def test_an_interrupted_run_is_recorded(quick: LabContext) -> None:
    def interrupt(step: Step) -> None:
        if step.name == "build":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Pipeline(quick).run("delivery", on_step=interrupt)
    run = Pipeline(quick).runs()[-1]
    assert run.state == "failed"
    assert "interrupted" in run.cause
    assert quick.store.last(Artifact)


def test_bad_input(world: LabContext) -> None:
    with pytest.raises(BadInput, match="delivery"):
        Pipeline(world).run("delivry")
    with pytest.raises(BadInput, match="no mode"):
        Pipeline(world).install_hook("nightly")
    with pytest.raises(BadInput, match="No pipeline listens"):
        Pipeline(world).push()
    with pytest.raises(BadInput):
        Pipeline(world).run("delivery", "no-such-branch")
    assert Pipeline(world).runs() == []
    assert main([str(world.root), "0" * 40]) == 0  # a deleted main
