"""Incident drills: a real fault in production, found by its signs, mended, and learned from.

faults and jobs: what may go wrong, how it comes, and the way back; evidence: what shows it, and what is
learned from it; record: what is written down.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from devops_lab.errors import BadInput
from devops_lab.model import Alert, EventKind, PostMortem
from devops_lab.phases.deploy import Deploy
from devops_lab.phases.operate import Operate
from devops_lab.platform import commands
from devops_lab.platform.cells import ends_with_cell
from devops_lab.platform.clock import Awake
from devops_lab.platform.context import LabContext
from devops_lab.platform.settings import choice
from devops_lab.platform.traffic.load import LoadRun, in_the_shop, percentile
from devops_lab.platform.waits import pause, until
from devops_lab.production.drills import evidence, faults, record
from devops_lab.production.drills.evidence import Sign, draft
from devops_lab.production.drills.faults import Fault, catalogue
from devops_lab.production.drills.record import DrillRun, Note

LONGEST_SECONDS = 600.0
AFTERMATH_SECONDS = 75.0  # an alert that fires already can't tell of anything new
CALM_SECONDS = 3.0  # customers are watched for so long before anything happens


@dataclass(frozen=True)
class Answer:
    """Whether it is so, and what was seen; true and false like a bool."""

    right: bool
    seen: str

    def __bool__(self) -> bool:
        return self.right

    def __repr__(self) -> str:
        return f"{'✔ right' if self.right else '… not yet'}. {self.seen}"


class Drill:
    """One incident, from its first sign to its post-mortem; `lab.operate.drill()` starts one."""

    def __init__(self, world: LabContext, sealed: Note) -> None:
        self.world, self._note, self._fault = world, sealed, faults.find(sealed.fault)
        self._job: faults.Job | None = None
        self._load: LoadRun | None = None

    @property
    def run(self) -> DrillRun:
        """Its record; the fault stays sealed until it is named."""
        found = self.world.store.get(DrillRun, f"{self._note.drill:06d}")
        assert found
        return found

    # ---- the reader's part
    def detected(self) -> Sign | None:
        """The first sign that something is wrong, once there is one: an alert, if any covers it."""
        found = evidence.first_sign(self.world, self._fault, self.run)
        if found and not self.run.detected:
            self._keep(detected=found.t, detected_by=found.by)
        return found

    def diagnose(self, name: str) -> Answer:
        """Say what it is, by one of the names that `lab.operate.faults()` lists.

        Raises:
            BadInput: there is no such fault.
        """
        choice("fault", name, tuple(catalogue()))
        right = name == self._note.fault
        self.detected()
        if not self.run.diagnosed:
            self._keep(guesses=[*self.run.guesses, name])
            self._tell("drill.diagnosed", f"{name}: {'right' if right else 'not yet'}")
            if right:
                self._keep(diagnosed=self.world.store.now(), fault=name)
        if right:
            return Answer(True, f"{self._fault.signal} Now bring service back: customers are waiting.")
        return Answer(False, f"It is something else. {self.seen()}")

    def seen(self) -> str:
        """What has shown itself so far, from alerts and customers."""
        return evidence.seen(self.world, self.run)

    def restored(self) -> Answer:
        """Whether customers are served as before and no alert is left; if so, the drill ends here."""
        run = self.run
        if run.state != "running":
            return Answer(run.state == "restored", f"The drill is over: {run.state}.")
        if not (self.detected() or run.diagnosed):
            return Answer(False, "Nothing has been detected yet, so there is nothing to restore.")
        if wrong := evidence.still_wrong(self.world, self._fault, run, self._note.fired):
            return Answer(False, wrong)
        self._keep(restored=self.world.store.now())
        self._end("restored")
        return Answer(True, f"Customers are served as before, after {self.run.seconds['restored']:.1f} s.")

    def give_up(self) -> str:
        """End the drill, have everything undone, and be told what it was and what would have helped."""
        if self.run.state == "running":
            self._end("given up")
        fault = self._fault
        told = f"It was: {fault.name}. {fault.customers} What shows it: {fault.signal}"
        return f"{told} What helps: {faults.WAYS[fault.mend]}"

    def mend(self) -> None:
        """Do what the reference solution does, for who wants to see it done."""
        faults.mend(self.world, self._fault, self.run)

    def post_mortem(self) -> PostMortem:
        """The draft of the post-mortem; its action is in the backlog, with its evidence.

        Raises:
            BadInput: the incident goes on.
        """
        if self.run.state == "running":
            raise BadInput(
                "The incident goes on.",
                expected="service that is restored, or a drill that was given up",
                next_step="Restore service, then drill.restored(); or drill.give_up().",
            )
        return draft(self.world, self.run, self._fault)

    # ---- how it begins and ends
    def _inject(self, blind: bool, baseline_p95: float) -> None:
        record.claim(self.world, self._note)
        run = DrillRun(self._note.drill, self._note.seal, blind, self.world.store.now(), baseline_p95)
        self.world.store.put(run)
        try:
            with commands.sealed():
                self._job, injected = faults.inject(self.world, self._fault, self._note)
        except BaseException:  # also an interrupt: nothing may be left half way
            self._end("undone")
            raise
        self._keep(injected=injected)
        self._tell("drill.started", "An incident drill: something in production is wrong.")
        _OPEN[self._note.seal] = self

    def _end(self, state: record.State) -> None:
        """Take out what is left, send the customers home, and open the seal."""
        if self._note.seal not in _OPEN:
            self._keep(state=state)  # the process that attends it sees this, and ends what it let run
        try:
            faults.undo(self.world, self._fault, self._note, self._job)
        finally:
            if self._load and self._load.running:
                self._load.stop()
        self._keep(state=state, fault=self._note.fault, ended=self.world.store.now())
        record.path_of(self.world).unlink(missing_ok=True)
        _OPEN.pop(self._note.seal, None)
        self._tell("drill.ended", f"{state}: {self._note.fault}")

    def attend(self) -> None:
        """Stay until the drill is over, whoever ends it; it is undone after LONGEST_SECONDS."""
        awake = Awake()
        try:
            while self.run.state == "running" and awake() < LONGEST_SECONDS:
                pause(0.5)
        finally:
            self._undone()
            if self._job:  # another process ended it, and could not end this one's
                self._job.stop()
            if self._load and self._load.running:
                self._load.stop()

    def _undone(self) -> str:
        """Undo it, because the cell that began it failed: the same cell can begin another one."""
        if self.run.state != "running":
            return ""
        self._end("undone")
        return f"drill {self._note.drill} was undone."

    def _keep(self, **changed: object) -> None:
        self.world.store.put(replace(self.run, **changed))  # type: ignore[arg-type]

    def _tell(self, kind: EventKind, text: str) -> None:
        who, subject = self.world.settings.learner, f"drill:{self._note.drill}"
        self.world.store.event("operate", kind, subject, text, who=who)

    def __repr__(self) -> str:
        run = self.run
        took = "".join(f"; {name} after {seconds:.1f} s" for name, seconds in run.seconds.items())
        return f"Drill {run.id}, {run.state}: {run.fault or 'sealed'}{took}"


_OPEN: dict[str, Drill] = {}  # by seal, so that a drill whose variable was lost is found again


def start(
    world: LabContext, name: str | None = None, seed: object = None, blind: bool | None = None
) -> Drill:
    """Let a fault happen in production.

    Args:
        name: which; None draws one by the seed.
        seed: any value; None is the number of the drill, so that each learner meets all, in their own order.
        blind: whether the name stays sealed; None: only where it was drawn.

    Raises:
        BadInput: no such fault, a drill runs already, nothing is in production, or this lab can't have it.
    """
    wanted = faults.find(name) if name else None
    settle(world)
    record.claim(world, None)
    if not Deploy(world).current():
        raise BadInput("Nothing is in production.", next_step='Call lab.catch_up("operate") first.')
    world.control.ensure()
    earlier = world.store.all(DrillRun)
    fault = wanted or faults.pick(
        world, len(earlier) if seed is None else seed, [run.fault for run in earlier]
    )
    if reason := faults.why_not(world, fault):
        raise BadInput(f"A {fault.name} can't be had in this lab now: {reason}", next_step="Choose another.")
    with commands.sealed():
        faulty = faults.release_with(world, fault).version if fault.change else ""
    until(
        lambda: world.control.keep() and not set(_firing(world)) & set(fault.alerts),
        "older alerts to end",
        seconds=AFTERMATH_SECONDS,
    )
    drill = Drill(
        world, Note(len(earlier) + 1, fault.name, faults.serving(world).env, faulty, _firing(world))
    )
    try:
        drill._load = _customers(world, fault.rate)
        before = world.store.now()
        pause(CALM_SECONDS)
        calm = percentile([o.seconds for o in world.store.requests(since=before)], 0.95)
        drill._inject(name is None if blind is None else blind, calm)
        ends_with_cell(world.root, drill._undone, again=False)
    except BaseException:
        if drill._load and drill._load.running:
            drill._load.stop()
        raise
    return drill


def _firing(world: LabContext) -> list[str]:
    return [alert.rule for alert in world.store.all(Alert) if alert.state == "firing"]


def _customers(world: LabContext, rate: float) -> LoadRun | None:
    """Customers for the time of the drill, unless some are here already."""
    if in_the_shop(world.store):
        return None
    return Operate(world).load(rate=rate, seconds=LONGEST_SECONDS, outlives_cell=True)


def current(world: LabContext) -> Drill | None:
    """The drill that runs, found again, also where another process runs it: a teacher's, or a kernel."""
    found = record.read(world)
    if not found or not (found.seal in _OPEN or found.owned):
        return None
    begun = world.store.get(DrillRun, f"{found.drill:06d}")  # what is only being prepared is none yet
    return (_OPEN.get(found.seal) or Drill(world, found)) if begun else None


def settle(world: LabContext) -> DrillRun | None:
    """Undo a drill whose process died in the middle; None when there is none."""
    left = record.read(world)
    if left is None or left.owned:
        return None
    drill = Drill(world, left)
    if world.store.get(DrillRun, f"{left.drill:06d}") is None:  # it died before anything happened
        record.path_of(world).unlink(missing_ok=True)
        return None
    drill._end("undone")
    return drill.run


__all__ = ["Answer", "Drill", "DrillRun", "Fault", "PostMortem", "Sign", "catalogue", "settle", "start"]
