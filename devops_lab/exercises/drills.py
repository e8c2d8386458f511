"""Small blind drills: something goes wrong where the reader does not see it happen; found by its signs."""

from __future__ import annotations

import hashlib
import shutil
import sys
from pathlib import Path
from zlib import crc32

from devops_lab.errors import BadInput
from devops_lab.exercises.base import Said, Verdict, could_not, not_yet, right, text
from devops_lab.exercises.planning import commit_named
from devops_lab.lab import Lab
from devops_lab.model import Artifact, PipelineRun
from devops_lab.platform import commands, variables
from devops_lab.platform.git import git, identity, run
from devops_lab.platform.identity import mark
from devops_lab.platform.processes import OWNER, created_at, end, process_of

BUILD_BRANCH, TEST_BRANCH, PUSH_BRANCH = "drill/build", "drill/test", "drill/continuous"
UNDO_BRANCH = "learn/undo"
PHONE = "The kitchen answers at extension 42."
TIPS = "src/bento/tips.py"
WORK_SECONDS = 900
JOB = """import time
end = time.monotonic() + {seconds}
while time.monotonic() < end:
    {work}
    time.sleep(0.05)
"""
BUSY = "sum(range(600_000))"


def drawn(lab: Lab, name: str, count: int) -> int:
    """Which of so many: another one at each start, and in each lab."""
    starts = len(lab.store.events(kind="exercise.started", subject=f"exercise:{name}"))
    return (crc32(f"{lab.settings.id}{name}".encode()) + starts) % count


def anew(lab: Lab, branch: str) -> None:
    """A branch that begins at main; one of that name goes."""
    lab.code.checkout("main")
    git(lab.world.shop, "switch", "--quiet", "--force-create", branch)


def commit_as(lab: Lab, who: str, message: str, path: str, content: str) -> None:
    target: Path = lab.world.shop / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(content, encoding="utf-8")
    git(lab.world.shop, "add", "--all")
    git(lab.world.shop, "commit", "--quiet", "-m", message, env=identity(who))


def has_phone(lab: Lab, branch: str) -> bool:
    """Whether the developer's good commit is still in."""
    return PHONE in git(lab.world.shop, "show", f"{branch}:README.md")


# ---- Build
def start_build(lab: Lab) -> str:
    anew(lab, BUILD_BRANCH)
    shop = lab.world.shop
    readme = (shop / "README.md").read_text("utf-8")
    commit_as(lab, "Chen Yulan", "docs: the kitchen's extension", "README.md", f"{readme}\n{PHONE}\n")
    artifact = lab.store.last(Artifact)
    compiled = ["native/score.c"] if artifact and artifact.scorer == "c" else []
    path = (choices := ["frontend/app.ts", "pyproject.toml", *compiled])[drawn(lab, "build-4", len(choices))]
    before = (shop / path).read_text("utf-8")
    commit_as(lab, "Chen Yulan", "chore: tidy up", path, before + "\nwhere ( does [ this end\n")
    lab.code.checkout("main")
    return f"{BUILD_BRANCH} has two commits of Chen Yulan's. Build it, and see."


def builds_again(lab: Lab, said: Said) -> Verdict:
    if BUILD_BRANCH not in lab.code.branches():
        return not_yet(f"{BUILD_BRANCH} is not there yet: .start() makes it.")
    if not has_phone(lab, BUILD_BRANCH):
        return not_yet("The kitchen's extension is gone from README.md: more than the fault was thrown away.")
    newest = git(lab.world.shop, "rev-parse", BUILD_BRANCH)
    tried = lab.store.events(kind="build.*", subject=f"commit:{newest}")
    ends = [event for event in tried if event.kind in ("build.done", "build.failed")]
    if not ends:
        return not_yet(f"The newest commit {newest[:8]} of {BUILD_BRANCH} was not built yet.")
    if ends[-1].kind == "build.failed":
        return not_yet(f"{newest[:8]} does not build: {ends[-1].message.splitlines()[0]}")
    return right(f"{newest[:8]} builds, and Chen Yulan's good commit is still in it.")


# ---- Test
def start_test(lab: Lab) -> str:
    anew(lab, TEST_BRANCH)
    bad = 2 + drawn(lab, "test-3", 5)
    for number in range(1, 9):
        share = 100 if number >= bad else 10
        code = f'"""Tips, take {number}."""\n\n\ndef tip(cents: int) -> int:\n    return cents // {share}\n'
        commit_as(lab, "Dario Conti", f"refactor: tips, take {number}", TIPS, code)
    lab.code.checkout("main")
    return f"{TEST_BRANCH} has eight commits. tip(1000) is to be 100; since one of them it is not."


def first_bad(lab: Lab, said: Said) -> Verdict:
    if TEST_BRANCH not in lab.code.branches():
        return not_yet(f"{TEST_BRANCH} is not there yet: .start() makes it.")
    answered = commit_named(lab, text(said))
    commits = git(lab.world.shop, "rev-list", "--reverse", f"main..{TEST_BRANCH}").splitlines()
    wrong = [commit for commit in commits if "// 100" in git(lab.world.shop, "show", f"{commit}:{TIPS}")]
    if answered not in commits:
        return not_yet(f"{answered[:8]} is none of the commits of {TEST_BRANCH}.")
    if answered not in wrong:
        return not_yet(f"At {answered[:8]} the tip is still right.")
    if answered != wrong[0]:
        return not_yet(f"At {answered[:8]} the tip is wrong, but it was wrong one commit earlier as well.")
    return right(f"With {answered[:8]}, commit {commits.index(answered) + 1} of 8, the tip went wrong.")


# ---- Release
def mirror(lab: Lab) -> Path:
    return lab.world.work / "mirror"


def start_release(lab: Lab) -> str:
    releases = lab.release.registry()
    if not releases:
        raise BadInput("Nothing was released in this lab yet.", next_step="Run the notebook's release first.")
    shutil.rmtree(mirror(lab), ignore_errors=True)
    shutil.copytree((lab.root / releases[-1].path).parent, mirror(lab))
    names = sorted(releases[-1].files)
    for path in mirror(lab).iterdir():
        path.chmod(0o644)
    victim = mirror(lab) / names[drawn(lab, "release-4", len(names))]
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    where = mirror(lab).relative_to(lab.root)
    return f"{where} in your lab mirrors version {releases[-1].version}. One of its files was changed."


def tampered(lab: Lab, said: Said) -> Verdict:
    if not mirror(lab).is_dir():
        return not_yet("The mirror is not there yet: .start() makes it.")
    answered = Path(text(said)).name
    released = next(
        r.files for r in reversed(lab.release.registry()) if r.files.keys() <= _names(mirror(lab))
    )
    if answered not in released:
        return not_yet(f"The release has no file {answered!r}; it has {', '.join(sorted(released))}.")
    now = f"sha256:{hashlib.sha256((mirror(lab) / answered).read_bytes()).hexdigest()}"
    if now == released[answered]:
        return not_yet(f"{answered} still has the digest that was released: {now[:15]}….")
    return right(f"{answered} was {released[answered][:15]}… when it was released, and is {now[:15]}….")


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# ---- Deploy
def start_deploy(lab: Lab) -> str:
    lab.deploy.settle()
    version, before = lab.deploy.current(), sum(pool.replicas for pool in lab.deploy.pools())
    if not version:
        raise BadInput("Nothing runs in production.", next_step="Run the notebook's first cells.")
    if drawn(lab, "deploy-4", 2):
        lab.deploy.scale(before + 1, who="the night shift", why="it felt slow")
    else:
        env = {"BENTO_LOG_LEVEL": "ERROR"}
        lab.deploy.run(version, who="the night shift", why="the logs were noisy", env=env)
    lab.store.event("deploy", "exercise.started", "exercise:night", version=version, replicas=before)
    return "the night shift changed one thing in production, and went home. All is green, and not as it was."


def as_it_was(lab: Lab, said: Said) -> Verdict:
    nights = lab.store.events(kind="exercise.started", subject="exercise:night", limit=1)
    if not nights:
        return not_yet("The night is still to come: .start() lets it pass.")
    pools = [pool for pool in lab.deploy.pools() if pool.weight > 0]
    if not pools or not lab.url:
        return could_not("Nothing runs in production: run the notebook's first cells, then check again.")
    before = nights[-1].data
    if {pool.release for pool in pools} != {before["version"]}:
        return not_yet(f"{pools[0].release} serves now; before the night it was {before['version']}.")
    if sum(pool.replicas for pool in pools) < before["replicas"]:
        return not_yet("Fewer replicas serve than before the night: that was too much of a good thing.")
    if sum(pool.replicas for pool in pools) > before["replicas"] or any(pool.env for pool in pools):
        return not_yet("Production is still not as it was before the night.")
    return right(f"{before['version']} serves as before the night, with {before['replicas']} replicas.")


# ---- Repeat
def start_repeat(lab: Lab) -> str:
    anew(lab, UNDO_BRANCH)
    for day, soup in (("Monday", "miso"), ("Tuesday", "broken glass"), ("Wednesday", "tomato")):
        path = f"docs/{day.lower()}.md"
        commit_as(lab, "Chen Yulan", f"docs: soup of {day}", path, f"{day}: {soup} soup\n")
    lab.code.checkout("main")
    commits = git(lab.world.shop, "rev-list", f"main..{UNDO_BRANCH}").splitlines()
    lab.store.event("repeat", "exercise.started", "exercise:undo", "", commits=commits)
    return f"{UNDO_BRANCH} has three commits of Chen Yulan's. One of them must not reach a customer."


def undone(lab: Lab, said: Said) -> Verdict:
    started = lab.store.events(kind="exercise.started", subject="exercise:undo", limit=1)
    if not started:
        return not_yet(f"{UNDO_BRANCH} is not there yet: .start() makes it.")
    shop, hers = lab.world.shop, started[-1].data["commits"]
    if lost := [c for c in hers if run(shop, "merge-base", "--is-ancestor", c, UNDO_BRANCH).returncode]:
        return not_yet(f"{lost[0][:8]} is gone from the branch: history that others have is not rewritten.")
    names = git(shop, "ls-tree", "--name-only", UNDO_BRANCH, "docs/").splitlines()
    texts = {name: git(shop, "show", f"{UNDO_BRANCH}:{name}") for name in names}
    if any("glass" in text for text in texts.values()):
        return not_yet(f"{UNDO_BRANCH} still serves what hurts.")
    if len(texts) < 2:
        return not_yet("A good soup was taken off the menu as well.")
    return right(f"It is undone by a commit of its own; the other soups stay: {', '.join(texts)}.")


# ---- Operate
def start_operate(lab: Lab) -> str:
    for old in lab.store.events(kind="exercise.started", subject="exercise:jobs", limit=1):
        end([(pid, born) for pid, born in old.data["jobs"].values()], 1.0)
    folder = lab.world.work / "jobs"
    folder.mkdir(parents=True, exist_ok=True)
    names = ("menu_cache", "night_report", "label_printer")
    guilty = names[drawn(lab, "operate-4", len(names))]
    started = {}
    for name in names:
        path = folder / f"{name}.py"
        path.write_text(JOB.format(seconds=WORK_SECONDS, work=BUSY if name == guilty else "pass"), "utf-8")
        env = variables.child(**{OWNER: mark(lab.root)})
        job = commands.start([sys.executable, str(path)], env=env, start_new_session=True, cwd=folder)
        started[name] = [job.pid, created_at(job.pid)]
    lab.store.event("operate", "exercise.started", "exercise:jobs", "", guilty=guilty, jobs=started)
    return "three jobs run beside the shop. One of them eats the processor that customers need."


def one_job_less(lab: Lab, said: Said) -> Verdict:
    events = lab.store.events(kind="exercise.started", subject="exercise:jobs", limit=1)
    if not events or lab.store.now() - events[-1].t > WORK_SECONDS:
        return not_yet(
            "No jobs run (they end by themselves after a quarter of an hour): .start() starts them."
        )
    alive = {name for name, (pid, born) in events[-1].data["jobs"].items() if process_of(pid, born)}
    guilty = events[-1].data["guilty"]
    if lost := sorted(set(events[-1].data["jobs"]) - alive - {guilty}):
        return not_yet(f"{lost[0]} does not run any more, and it had done no harm. Start again.")
    if guilty in alive:
        return not_yet("All three jobs run, and one of them still eats the processor.")
    return right(f"{guilty} is ended; the other two go on, and customers have the processor again.")


# ---- Continuous
def start_continuous(lab: Lab) -> str:
    anew(lab, PUSH_BRANCH)
    readme = (lab.world.shop / "README.md").read_text("utf-8")
    commit_as(lab, "Ada Lindqvist", "feat: a phone number", "README.md", f"{readme}\n{PHONE}\n")
    faults = {
        "frontend/app.ts": (lab.world.shop / "frontend/app.ts").read_text("utf-8") + "\nwhere ( does\n",
        "tests/unit/test_phone.py": "def test_phone():\n    assert '43' in '42'\n",
    }
    path = list(faults)[drawn(lab, "continuous-4", len(faults))]
    commit_as(lab, "Ada Lindqvist", "fix: the number", path, faults[path])
    lab.code.checkout("main")
    lab.pipeline.run("delivery", PUSH_BRANCH, who="Ada Lindqvist")
    return f"Ada Lindqvist pushed {PUSH_BRANCH}, and the pipeline stopped. Nobody has told her why."


def goes_through(lab: Lab, said: Said) -> Verdict:
    if PUSH_BRANCH not in lab.code.branches():
        return not_yet(f"{PUSH_BRANCH} is not there yet: .start() makes it.")
    newest = git(lab.world.shop, "rev-parse", PUSH_BRANCH)
    runs = [each for each in lab.store.all(PipelineRun) if each.commit == newest]
    if not has_phone(lab, PUSH_BRANCH):
        return not_yet("Her feature is gone: the number stands in README.md no more.")
    if not runs:
        return not_yet(f"No pipeline has seen {newest[:8]}, the newest commit of {PUSH_BRANCH}.")
    if not runs[-1].ok:
        return not_yet(f"{newest[:8]} stops at {runs[-1].stopped_at}.")
    return right(f"{newest[:8]} goes through Plan > Code > Build > Test, with her feature in it.")
