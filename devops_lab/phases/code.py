"""Code: the developers' daily round in real git, and the platform's services that their code may use.

Branch > write > commit > review > merge > push. The DevOps engineer reviews what production has to carry.
Uncommitted work is never lost: what would touch it refuses, and says how to go on.
"""

from __future__ import annotations

import re
import warnings
from contextlib import suppress
from pathlib import Path

from devops_lab.errors import BadInput, LabError
from devops_lab.git import git, identity, run
from devops_lab.model import Commit, Item
from devops_lab.phases import World
from devops_lab.phases.backlog import Service
from devops_lab.phases.checklist import Check, checklist, read_diff
from devops_lab.phases.plan import Plan
from devops_lab.phases.services import Answer, try_service
from devops_lab.settings import choice

MAIN = "main"
FORMAT = "%H%x1f%s%x1f%an%x1f%at%x1f%P"
ITEM = re.compile(r"\b[A-Z][A-Z0-9]*-\d+\b")


class Code:
    """The shop's working clone, and who works in it.

    Args:
        world: the lab.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.store = world.store
        self.shop = world.shop

    # ---- what the platform offers
    def services(self) -> list[Service]:
        """The catalogue: each service of platform.yaml, and how code talks to it."""
        return list(Plan(self.world).platform().services.values())

    def try_service(self, name: str) -> Answer:
        """Talk to a service for real; what is not up answers with `ok` False and what to do.

        Raises:
            BadInput: the platform has no such service.
        """
        services = Plan(self.world).platform().services
        return try_service(self.world, services[choice("service", name, tuple(services))])

    # ---- looking
    def head(self) -> Commit:
        """The newest commit of what is checked out."""
        return self.log(1)[0]

    def log(self, n: int = 10, branch: str = "HEAD") -> list[Commit]:
        """The newest `n` commits of a branch, newest first."""
        lines = git(self.shop, "log", f"-{n}", f"--format={FORMAT}", branch, "--").splitlines()
        rows = [line.split("\x1f") for line in lines]
        return [Commit(id, subject, who, float(t), parents.split()) for id, subject, who, t, parents in rows]

    def diff(self, base: str = MAIN) -> str:
        """What this branch and the working tree add to `base` since they parted."""
        return git(self.shop, "diff", git(self.shop, "merge-base", base, "HEAD"))

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
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8", newline="\n")
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
        git(self.shop, "add", "--all")
        git(self.shop, "commit", "--quiet", "-m", message, env=identity(self.world.settings.learner))
        return self._record(self.head(), "code.committed")

    def apply(self, change_id: str) -> Commit:
        """Let its developer commit a prepared change on this branch; safe to repeat.

        Raises:
            BadInput: there is no such change.
            LabError: it doesn't fit, or there is uncommitted work; the branch is as it was.
        """
        from devops_lab.shop import apply_change, changes

        known = {change.id: change for change in changes()}
        change = known[choice("change", change_id, tuple(known))]
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
        findings = Plan(self.world).review(item.id) if item and item.status == "ready" else []
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

    def push(self) -> str:
        """Push this branch to the origin and return what the origin answered (`remote:` lines included).

        Raises:
            LabError: the origin refused; carries git's own words.
        """
        done = run(self.shop, "push", "--set-upstream", "origin", "HEAD")
        if done.returncode:
            raise LabError(
                f"The push was refused:\n{done.stderr.strip()}",
                next_step="Somebody else may have pushed: `git pull --rebase` in the shop, then push again.",
            )
        self.store.event(
            "code", "code.pushed", f"commit:{self.head().id}", self.current(), who=self.world.settings.learner
        )
        return done.stderr.strip()

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
            raise LabError(
                f"The origin refused the merge:\n{done.stderr.strip()}", next_step="Look, then merge again."
            )

    def _to_merge(self, branch: str) -> str:
        name = branch or self.current()
        if name != MAIN:
            choice("branch", name, tuple(self.branches()))
        if name == MAIN or not git(self.shop, "rev-list", "--max-count=1", f"{MAIN}..{name}"):
            raise BadInput(
                f"{name} has nothing that main doesn't have.",
                expected="a branch with commits of its own",
                next_step="code.branch(name), then code.write(…) and code.commit(…), or code.apply(change).",
            )
        return name

    def _needs_clean(self, wish: str) -> None:
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
            plan = Plan(self.world)
            return [
                item for item in [*plan.backlog(), *plan.finished()] if item.id in ids or item.change in named
            ]
        return []

    def _record(self, commit: Commit, kind: str, *words: str, who: str = "", **data: str) -> Commit:
        subject = f"commit:{commit.id}"
        for item in self._items(self.current(), commit.subject, *words):
            self.store.link(subject, "implements", f"item:{item.id}")
        self.store.event("code", kind, subject, commit.subject, who=who or commit.author, **data)
        return commit
