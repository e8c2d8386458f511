"""Plan: the backlog, what the platform can carry of it, and what fits in the next sprint.

The developers are the DevOps engineer's customers: here operations learns what is coming, and steers what the
platform can't carry towards what it can, before code is written. Ignored advice comes back in Operate.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from statistics import median
from typing import Any

from devops_lab.errors import BadInput
from devops_lab.model import Decision, Event, EventKind, Finding, Forecast, Item, Sprint
from devops_lab.planning.backlog import (
    BACKLOG,
    PLATFORM,
    Platform,
    read_backlog,
    read_platform,
    with_item,
    without_item,
)
from devops_lab.planning.sprint import by_wsjf, check_by_hand, monte_carlo, no_history, review_item
from devops_lab.platform.context import LabContext
from devops_lab.platform.git import commit_file, git, identity
from devops_lab.platform.settings import choice

QUIET_PUSH = {"DEVOPS_LAB_PIPELINE": "skip"}  # a changed backlog is nothing to build


class Plan:
    """What comes next, and what operations says to it.

    Args:
        world: the lab.
    """

    def __init__(self, world: LabContext) -> None:
        self.world = world
        self.store = world.store

    # ---- what there is
    def backlog(self) -> list[Item]:
        """The items that wait, in the file's order.

        Raises:
            BadInput: the file doesn't parse or doesn't hold together; names file, line and what was expected.
        """
        return [item for item in self._items() if item.status == "ready"]

    def finished(self) -> list[Item]:
        """The items that are done, by sprint."""
        return sorted((item for item in self._items() if item.status == "done"), key=lambda item: item.sprint)

    def platform(self) -> Platform:
        """The declared services and limits of the platform."""
        return read_platform(self._read(PLATFORM))

    def capacity(self) -> float:
        """Story points of a sprint: the median of the past sprints' velocities."""
        velocity: Counter[int] = Counter()
        for item in self.finished():
            velocity[item.sprint] += item.effort  # type: ignore[assignment]  # counts points, which may be halves
        if not velocity:
            raise no_history(0, 1)
        return float(median(velocity.values()))

    def sprint(self) -> Sprint | None:
        """The sprint that was chosen last."""
        return self.store.last(Sprint)

    # ---- what operations says to it
    def review(self, item: str = "") -> list[Finding]:
        """Hold each waiting item's needs against the platform, and name its declared risk.

        Args:
            item: one item's id; "" = all that wait.

        Returns:
            what blocks (the platform doesn't have it) and risks, with the first alternative that fits.
        """
        waiting = [self._waiting(item)] if item else self.backlog()
        platform = self.platform()
        return [finding for each in waiting for finding in review_item(each, platform)]

    def decide(self, item: str, take: bool, why: str = "") -> Decision:
        """Take or ignore the advice on an item; taking it rewrites the item into the proposed alternative.

        Raises:
            BadInput: nothing was advised on this item, or there is no alternative to take.
        """
        current = self._waiting(item)
        findings = self.review(item)
        if not findings:
            raise BadInput(f"The review has nothing to say on {item}.", next_step="See plan.review().")
        chosen = findings[0].alternative
        if take and chosen < 0:
            raise BadInput(
                f"{item} has no alternative that the platform can carry.",
                next_step="Leave it out of the sprint, or write an alternative into the backlog.",
            )
        if take:
            better = current.alternatives[chosen]
            changed = replace(
                current, title=better.title, effort=better.effort, value=better.value, needs=better.needs,
                change=better.change, risk="", alternatives=[],
            )  # fmt: skip
            self._save(changed, f"docs(backlog): {item} becomes {better.title!r}\n\n{why}".strip())
        return self._record(current, take, findings, why)

    def _record(self, item: Item, take: bool, findings: list[Finding], why: str) -> Decision:
        advice = "; ".join(finding.problem for finding in findings)
        if findings[0].proposal:
            advice += f". Proposed: {findings[0].proposal}"
        did = "taken" if take else "ignored"
        subject, more = f"decision:{item.id}", {"taken": take, "change": item.change}
        event = self._event("plan.decided", subject, f"Advice {did}: {advice}", why, **more)
        decision = Decision(item.id, take, event.who, event.t, advice)
        self.store.put(decision)
        self.store.link(f"item:{item.id}", f"advice {did}", subject)
        return decision

    def _event(self, kind: EventKind, subject: str, message: str, why: str = "", **data: Any) -> Event:
        who = self.world.settings.learner
        return self.store.event("plan", kind, subject, message, who=who, why=why, **data)

    def consequences(self) -> list[tuple[Decision, Item, str]]:
        """Ignored advice that can still hurt: the decision, its item, and the id of the change."""
        items = {item.id: item for item in self._items()}
        ignored = [decision for decision in self.store.all(Decision) if not decision.taken]
        return [
            (d, items[d.item], items[d.item].change)
            for d in ignored
            if d.item in items and items[d.item].change
        ]

    # ---- what is chosen
    def choose(self, items: Sequence[str] | None = None, capacity: float | None = None) -> Sprint:
        """Choose the next sprint: by hand, or by weighted shortest job first.

        Source: Reinertsen, The Principles of Product Development Flow (2009), chapter 7; SAFe's WSJF.

        Args:
            items: ids; None = the highest cost of delay a point first, with what it depends on.
            capacity: story points; None = `capacity()`.

        Raises:
            BadInput: unknown, blocked or doubled items, a missing dependency, or more than the capacity.
        """
        room = self.capacity() if capacity is None else capacity
        if not room > 0:
            raise BadInput(f"capacity = {room:g}", expected="more than 0 story points")
        waiting = {item.id: item for item in self.backlog()}
        blocked = self._blocked()
        if items is None:
            chosen = by_wsjf(waiting, set(blocked), room)
        else:
            chosen = [waiting[choice("waiting item", name, tuple(waiting))] for name in items]
            check_by_hand(chosen, waiting, blocked, room)
        if not chosen:
            raise BadInput(
                "No item fits.", expected=f"items of {room:g} points in all", next_step="See plan.backlog()."
            )
        return self._start_sprint(chosen, room, "wsjf" if items is None else "hand")

    def _start_sprint(self, chosen: list[Item], room: float, how: str) -> Sprint:
        number = 1 + max((item.sprint for item in self.finished()), default=0)
        effort, value = sum(item.effort for item in chosen), sum(item.value for item in chosen)
        names = [item.id for item in chosen]
        text = f"{effort:g} of {room:g} points: {', '.join(names)}"
        event = self._event("plan.chosen", f"sprint:{number}", text, items=names)
        sprint = Sprint(number, room, names, effort, value, how, event.t)
        self.store.put(sprint)
        for name in names:
            self.store.link(f"item:{name}", "planned in", f"sprint:{number}")
        return sprint

    def forecast(self, remaining: int | None = None, trials: int = 10_000, seed: int = 7) -> Forecast:
        """When will it be done? Draw past sprints' throughput at random until nothing remains, many times.

        Source: Vacanti, Actionable Agile Metrics for Predictability (2015), chapter 15.

        Args:
            remaining: items to finish; None = all that wait.
            trials: number of simulated futures.
            seed: the same seed gives the same forecast.

        Raises:
            BadInput: fewer than three sprints of history, or nothing was ever finished.
        """
        left = len(self.backlog()) if remaining is None else remaining
        counted = Counter(item.sprint for item in self.finished())
        throughput = [counted[n] for n in range(min(counted), max(counted) + 1)] if counted else []
        return monte_carlo(throughput, left, trials, seed)

    # ---- what changes the backlog
    def add(self, item: Item) -> Item:
        """Write an item into the backlog, commit it, and keep what it is based on in the trail.

        It takes the place of a waiting one with the same id that was added in this lab: so it is changed.

        Raises:
            BadInput: the id is taken by another item, or the item doesn't hold together.
        """
        added = self.store.events(kind="plan.added", subject=f"item:{item.id}", limit=1)
        known = next((other for other in self._items() if other.id == item.id), None)
        if known and (known.status == "done" or not added):
            raise BadInput(
                f"There is an item {item.id!r} already.",
                expected="an id of its own",
                next_step=f"Take another id, or the waiting one out: lab.plan.remove({item.id!r}).",
            )
        self._save(item, f"docs(backlog): {'change' if known else 'add'} {item.id}, {item.title}")
        for origin in item.evidence:
            self.store.link(f"item:{item.id}", "because of", origin)
        self._event("plan.added", f"item:{item.id}", item.title, evidence=item.evidence)
        return item

    def remove(self, item: str) -> Item:
        """Take a waiting item out of the backlog, and commit that.

        Raises:
            BadInput: no such item waits, or another one depends on it.
        """
        found = self._waiting(item)
        if others := [other.id for other in self.backlog() if item in other.depends_on]:
            raise BadInput(f"{others[0]} depends on {item}.", next_step=f"Take {others[0]} out first.")
        text = without_item(self._read(BACKLOG), item)
        self._commit(text, f"docs(backlog): remove {item}, {found.title}")
        self._event("plan.removed", f"item:{item}", found.title)
        return found

    def finish(self, item: str) -> Item:
        """Mark an item as done, today, in the current sprint; safe to repeat.

        One that carries evidence from production closes the loop: the lifecycle map lights up "Repeat".
        """
        items = {each.id: each for each in self._items()}
        found = items[choice("item", item, tuple(items))]
        if found.status == "done":
            return found
        sprint = self.sprint()
        number = sprint.number if sprint else 1 + max((each.sprint for each in items.values()), default=0)
        done = replace(found, status="done", done_on=date.today().isoformat(), sprint=number)
        self._save(done, f"docs(backlog): {item} is done")
        self._event("plan.finished", f"item:{item}", found.title)
        if found.evidence:  # production asked for it: the loop has been walked once round
            text = f"{found.title}; asked for by {', '.join(found.evidence)}"
            who = self.world.settings.learner
            self.store.event("repeat", "repeat.closed", f"item:{item}", text, who=who)
        return done

    # ---- the file
    def _read(self, name: str) -> str:
        """The plan is main's: the working tree's file when main is checked out, else the committed one."""
        path = self.world.shop / name
        if git(self.world.shop, "branch", "--show-current") != "main":
            return git(self.world.shop, "show", f"main:{name}") + "\n"
        if not path.is_file():
            raise BadInput(
                f"{name} is missing in the shop.", next_step=f"Get it back: git checkout HEAD -- {name}"
            )
        try:
            return path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise BadInput(f"{name} is no text: {error}", expected="UTF-8") from error

    def _items(self) -> tuple[Item, ...]:
        return read_backlog(self._read(BACKLOG), _changes())

    def _save(self, item: Item, message: str) -> None:
        commit = self._commit(with_item(self._read(BACKLOG), item), message)
        self.store.link(f"commit:{commit}", "plans", f"item:{item.id}")

    def _commit(self, text: str, message: str) -> str:
        """Commit the backlog's new text on main and push it; never one that would not read back."""
        read_backlog(text, _changes())
        shop, who = self.world.shop, identity(self.world.settings.learner)
        commit = commit_file(shop, BACKLOG, text, message, env=who)
        git(shop, "push", "--quiet", "origin", "main", env=QUIET_PUSH)
        return commit

    def _waiting(self, item: str) -> Item:
        waiting = {each.id: each for each in self.backlog()}
        return waiting[choice("waiting item", item, tuple(waiting))]

    def _blocked(self) -> dict[str, Finding]:
        """What the platform can't carry, unless that advice was ignored on purpose."""
        ignored = {decision.item for decision in self.store.all(Decision) if not decision.taken}
        found = [f for f in self.review() if f.severity == "blocks" and f.item not in ignored]
        return {finding.item: finding for finding in reversed(found)}


def _changes() -> frozenset[str] | None:
    from devops_lab.shop import changes

    return frozenset(change.id for change in changes()) or None
