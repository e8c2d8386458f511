"""Code: the developers' daily round in real git, and the platform's services that their code may use.

Branch > write > commit > review > merge > push. The DevOps engineer reviews what production has to carry.
Uncommitted work is never lost: what would touch it refuses, and says how to go on.
"""

from __future__ import annotations

import re
import warnings
from contextlib import suppress
from pathlib import Path

from devops_lab.delivery.checklist import checklist, read_diff
from devops_lab.errors import BadInput, LabError
from devops_lab.model import Check, Commit, CommitGraph, EventKind, Item, Service
from devops_lab.phases.plan import Plan
from devops_lab.planning.services import Answer, try_service
from devops_lab.platform import commands
from devops_lab.platform.context import LabContext
from devops_lab.platform.git import git, half_done, identity, run, trouble
from devops_lab.platform.settings import choice

MAIN = "main"
FORMAT = "%H%x1f%s%x1f%an%x1f%at%x1f%P"
ITEM = re.compile(r"\b[A-Z][A-Z0-9]*-\d+\b")


class Code:
    """The shop's working clone, and who works in it.

    Args:
        world: the lab.
    """

    def __init__(self, world: LabContext) -> None:
        self.world = world
        self.store = world.store
        self.shop = world.shop
        self.plan = Plan(world)

    # ---- what the platform offers
    def services(self) -> list[Service]:
        """The catalogue: each service of platform.yaml, and how code talks to it."""
        return list(self.plan.platform().services.values())

    def try_service(self, name: str) -> Answer:
        """Talk to a service for real; what is not up answers with `ok` False and what to do.

        Raises:
            BadInput: the platform has no such service.
        """
        services = self.plan.platform().services
        return try_service(self.world, services[choice("service", name, tuple(services))])

    # ---- looking
    def head(self) -> Commit:
        """The newest commit of what is checked out."""
        return self.log(1)[0]

    def log(self, n: int = 10, *which: str) -> list[Commit]:
        """The newest `n` commits of a branch (or what else git's log takes), newest first."""
        lines = git(self.shop, "log", f"-{n}", f"--format={FORMAT}", *(which or ("HEAD",)), "--").splitlines()
        rows = [line.split("\x1f") for line in lines]
        return [Commit(id, subject, who, float(t), parents.split()) for id, subject, who, t, parents in rows]

    def graph(self, n: int = 24) -> CommitGraph:
        """The newest `n` commits of all branches, what points at them, and a merge that is half done."""
        points = git(self.shop, "for-each-ref", "--format=%(objectname)%(*objectname) %(refname:lstrip=1)")
        refs: dict[str, list[str]] = {}
        for line in points.splitlines():
            ids, name = line.split(" ", 1)
            if name.startswith(("heads/", "tags/", "remotes/origin/")) and not name.endswith("/HEAD"):
                refs.setdefault(ids[-40:], []).append(name)  # an annotated tag: the commit that it names
        found = self.log(n, "--branches", "--tags", "HEAD", "--topo-order")
        return CommitGraph(
            commits=found,
            refs=refs,
            head=git(self.shop, "rev-parse", "HEAD"),
            branch=self.current(),
            count=int(git(self.shop, "rev-list", "--count", "--branches", "--tags", "HEAD")),
            under_way=half_done(self.shop)[0],
            incoming=run(self.shop, "rev-parse", "--verify", "--quiet", "MERGE_HEAD").stdout.strip(),
            conflicts=git(self.shop, "diff", "--name-only", "--diff-filter=U").splitlines(),
        )

    def current(self) -> str:
        """The branch that is checked out; "" for none (a detached head)."""
        return git(self.shop, "branch", "--show-current")

    def branches(self) -> list[str]:
        return git(self.shop, "branch", "--format=%(refname:short)").splitlines()

    def uncommitted(self) -> list[str]:
        """Changed and new files that no commit holds yet."""
        return [line[3:] for line in git(self.shop, "status", "--porcelain").splitlines()]

    # ---- working
    def branch(self, name: str) -> str:
        """Start a branch here and check it out; one that exists with work of its own is only checked out.

        Raises:
            BadInput: no good name for a branch.
            LabError: there is uncommitted work.
        """
        if run(self.shop, "check-ref-format", "--branch", name).returncode or name == MAIN:
            raise BadInput(f"{name!r} is no name for a new branch.", expected="such as work/dietary-filter")
        if self.current() == name:
            return name
        self._needs_clean("start a branch")
        if name in self.branches() and run(self.shop, "merge-base", "--is-ancestor", name, "HEAD").returncode:
            git(self.shop, "switch", "--quiet", name)
        else:
            git(self.shop, "switch", "--quiet", "--force-create", name)
        return name

    def checkout(self, name: str = MAIN) -> Commit:
        """Check out a branch, a tag or a commit.

        Raises:
            BadInput: there is no such thing; names near ones.
            LabError: there is uncommitted work.
        """
        if run(self.shop, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}").returncode:
            tags = git(self.shop, "tag").splitlines()
            choice("branch, tag or commit", name, (*self.branches(), *tags))
        self._needs_clean(f"check out {name}")
        git(self.shop, "checkout", "--quiet", name, "--")
        return self.head()

    def write(self, path: str, text: str) -> Path:
        """Write a file of the shop; nothing is committed yet.

        Raises:
            BadInput: the path leads out of the shop, or into git's own folder.
        """
        target = (self.shop / path).resolve()
        inside = target.is_relative_to(self.shop.resolve()) and target != self.shop.resolve()
        if not inside or ".git" in target.relative_to(self.shop.resolve()).parts:
            raise BadInput(f"{path!r} is no file of the shop.", expected="a path such as src/bento/app.py")
        name = target.relative_to(self.shop.resolve())
        if not target.parent.is_dir():
            target.parent.mkdir(parents=True)
            commands.did("mkdir", "-p", name.parent, folder=self.shop)
        target.write_text(text, encoding="utf-8", newline="\n")
        commands.did("cat", folder=self.shop, text=text, log=str(name))
        return target

    def commit(self, message: str) -> Commit:
        """Commit all that was changed, as the learner.

        Raises:
            BadInput: there is nothing to commit, or no message.
        """
        if not message.strip():
            raise BadInput("A commit needs a message.", expected="such as 'fix: round prices up'")
        if not self.uncommitted():
            raise BadInput(
                "There is nothing to commit.", next_step="First change a file: code.write(path, text)."
            )
        conflicts = git(self.shop, "diff", "--name-only", "--diff-filter=U").splitlines()
        unsettled = any(b"\n<<<<<<< " in b"\n" + (self.shop / name).read_bytes() for name in conflicts)
        if unsettled or half_done(self.shop)[0] in ("am", "rebase"):
            raise self._half_done("commit")
        git(self.shop, "add", "--all")
        git(self.shop, "commit", "--quiet", "-m", message, env=identity(self.world.settings.learner))
        return self._record(self.head(), "code.committed")

    def apply(self, change_id: str) -> Commit:
        """Let its developer commit a prepared change on this branch; safe to repeat.

        Raises:
            BadInput: there is no such change.
            LabError: it doesn't fit, or there is uncommitted work; the branch is as it was.
        """
        from devops_lab.shop import apply_change, find_change

        change = find_change(change_id)
        for commit in self.log(50, f"{MAIN}..HEAD"):
            if commit.subject == change.subject:
                return commit
        self._needs_clean(f"apply {change_id}")
        apply_change(self.shop, change_id)
        return self._record(self.head(), "code.committed", change_id)

    # ---- reviewing and merging
    def review(self, branch: str = "") -> list[Check]:
        """Go through the checklist on a branch's diff against main.

        Args:
            branch: "" = the one that is checked out.

        Raises:
            BadInput: no such branch, or it holds nothing that main doesn't have.
        """
        name = self._to_merge(branch)
        item = next(iter(self._items(name, *self._subjects(name))), None)
        findings = self.plan.review(item.id) if item and item.status == "ready" else []
        blocked = [finding.problem for finding in findings if finding.severity == "blocks"]
        fine = f"the review of {item.id} found nothing that blocks" if item else "no backlog item is named"
        carried = Check("platform", not blocked, f"{item.id} {blocked[0]}" if item and blocked else fine)
        return [*checklist(read_diff(self.shop, name)), carried]

    def merge(self, branch: str = "") -> Commit:
        """Merge a branch into main with a merge commit, and push main to the origin.

        Args:
            branch: "" = the one that is checked out.

        Raises:
            BadInput: no such branch, or nothing to merge.
            LabError: uncommitted work, a conflict, or a refused push; everything is as it was.
        """
        name, origin = self._to_merge(branch), self.current() or self.head().id
        self._needs_clean(f"merge {name}")
        who = self.world.settings.learner
        git(self.shop, "checkout", "--quiet", MAIN, "--")
        try:
            self._catch_up_with_origin()
            before = git(self.shop, "rev-parse", MAIN)
            self._merge(name, who)
            self._push_or_undo(before)
        except LabError:
            git(self.shop, "checkout", "--quiet", origin, "--")
            raise
        merged = self._record(self.head(), "code.merged", name, who=who, branch=name)
        for commit in self.log(50, f"{before}..{name}"):
            self.store.link(f"commit:{merged.id}", "merges", f"commit:{commit.id}")
        return merged

    # ---- the steps of a merge
    def _catch_up_with_origin(self) -> None:
        git(self.shop, "fetch", "--quiet", "origin")
        if run(self.shop, "merge-base", "--is-ancestor", f"origin/{MAIN}", MAIN).returncode:
            git(self.shop, "merge", "--quiet", "--ff-only", f"origin/{MAIN}")

    def _merge(self, name: str, who: str) -> None:
        done = run(self.shop, "merge", "--no-ff", "-m", f"Merge branch '{name}'", name, env=identity(who))
        if done.returncode:
            files = git(self.shop, "diff", "--name-only", "--diff-filter=U").splitlines()
            run(self.shop, "merge", "--abort")
            raise LabError(
                f"{name} does not merge: {', '.join(files) or done.stderr.strip()} changed on both sides.",
                expected="a branch that stands on today's main",
                next_step=f"Check out {name}, `git rebase main`, settle the conflict, then merge again.",
            )

    def _push_or_undo(self, before: str) -> None:
        done = run(self.shop, "push", "--quiet", "origin", MAIN)
        if "remote: pipeline: continuous" in done.stderr:  # nobody is to be surprised by what a merge set off
            warnings.warn(f"The merge was pushed, and set off the pipeline:\n{done.stderr}", stacklevel=3)
        if done.returncode:
            git(self.shop, "reset", "--quiet", "--keep", before)
            raise trouble(self.shop, done.stderr) or LabError(
                f"The origin refused the merge:\n{done.stderr.strip()}", next_step="Look, then merge again."
            )

    def _to_merge(self, branch: str) -> str:
        name = branch or self._needs_branch()
        if name != MAIN:
            choice("branch", name, tuple(self.branches()))
        if name == MAIN or not git(self.shop, "rev-list", "--max-count=1", f"{MAIN}..{name}"):
            raise BadInput(
                f"{name} has nothing that main doesn't have.",
                expected="a branch with commits of its own",
                next_step="code.branch(name), then code.write(…) and code.commit(…), or code.apply(change).",
            )
        return name

    def _needs_branch(self) -> str:
        if not (name := self.current()):
            raise BadInput(
                "No branch is checked out in the shop (a detached head).",
                expected="a branch",
                next_step="Keep its commits: code.branch(name); or leave them: code.checkout('main').",
            )
        return name

    def _half_done(self, wish: str) -> LabError:
        command, way = half_done(self.shop)
        conflicts = git(self.shop, "diff", "--name-only", "--diff-filter=U").splitlines()
        where = f", with conflicts in {', '.join(conflicts[:5])}" if conflicts else ""
        half = (
            f"a `git {command}` is under way in the shop" if command else "something is half done in the shop"
        )
        return LabError(f"Can't {wish}: {half}{where}.", expected="nothing half done", next_step=way)

    def _needs_clean(self, wish: str) -> None:
        if half_done(self.shop)[0]:
            raise self._half_done(wish)
        if waiting := self.uncommitted():
            raise LabError(
                f"Can't {wish}: {', '.join(waiting[:5])} would be at risk.",
                expected="no uncommitted change",
                next_step="Keep it: code.commit('wip: …'); or put it aside: `git stash -u` in the shop.",
            )

    # ---- the trail
    def _subjects(self, branch: str) -> list[str]:
        return git(self.shop, "log", "--format=%s", f"{MAIN}..{branch}").splitlines()

    def _items(self, *words: str) -> list[Item]:
        """Backlog items that a branch's name, a commit's subject or a change's id stand for."""
        from devops_lab.shop import changes

        by_subject = {change.subject: change.id for change in changes()}
        named = {by_subject.get(word, word.removeprefix("work/")) for word in words}
        ids = {found for word in words for found in ITEM.findall(word)}
        with suppress(BadInput):  # a broken backlog is Plan's to report; it must not stop a commit
            items = [*self.plan.backlog(), *self.plan.finished()]
            return [item for item in items if item.id in ids or item.change in named]
        return []

    def _record(self, commit: Commit, kind: EventKind, *words: str, who: str = "", **data: str) -> Commit:
        subject = f"commit:{commit.id}"
        for item in self._items(self.current(), commit.subject, *words):
            self.store.link(subject, "implements", f"item:{item.id}")
        self.store.event("code", kind, subject, commit.subject, who=who or commit.author, **data)
        return commit
