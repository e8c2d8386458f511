"""Alerts: what rules read, every second, is pending, firing or resolved, each told once with its evidence."""

from __future__ import annotations

from dataclasses import replace
from math import isnan

from devops_lab.model import Alert, AlertRule
from devops_lab.platform.context import LabContext
from devops_lab.platform.monitoring.objectives import Objectives
from devops_lab.platform.monitoring.rules import DEFAULT_RULES, Reading, check, read
from devops_lab.platform.settings import choice

STATES = ("pending", "firing", "resolved")
JITTER_SECONDS = 0.1  # ticks are a second apart, give or take: who holds "for 2 s" holds for two of them


class Alerting:
    """The rules and objectives of one lab, and the alerts that came of them.

    Args:
        world: the lab that is watched.
    """

    def __init__(self, world: LabContext) -> None:
        self.world, self.store = world, world.store
        self.slo = Objectives(world.store, self.close_alert)

    # ---- rules
    def rules(self) -> list[AlertRule]:
        """The rules that are in force; a new lab starts with DEFAULT_RULES."""
        found = self.store.all(AlertRule)
        if not found and not self.store.events(kind="monitor.rules", limit=1):
            self.store.put(*DEFAULT_RULES)
            self.store.event(
                "monitor", "monitor.rules", "rules", f"{len(DEFAULT_RULES)} alert rules to start with"
            )
            found = self.store.all(AlertRule)
        return found

    def add_rule(self, rule: AlertRule) -> AlertRule:
        """Keep a rule, in place of one with the same name.

        Raises:
            BadInput: unknown metric, a threshold that makes no sense, or a `resolve` above it.
        """
        self.rules()  # so that the defaults are there before the reader's first rule
        self.store.put(check(rule))
        return rule

    def remove_rule(self, name: str) -> None:
        """Drop a rule; what it has open is closed, because nothing watches it any more."""
        choice("alert rule", name, tuple(rule.name for rule in self.rules()))
        self.close_alert(name)
        self.store.remove(AlertRule, name)

    def close_alert(self, name: str) -> None:
        """End what a rule that is not there any more has open."""
        for alert in self._open():
            if alert.rule == name and alert.state == "firing":
                self._resolve(alert, self.store.now(), "its rule was removed")
            elif alert.rule == name:
                self.store.remove(Alert, alert.key)

    def alerts(self, state: str = "") -> list[Alert]:
        """All alerts, oldest first, or those in one state: pending, firing, resolved."""
        if state:
            choice("alert state", state, STATES)
        found = sorted(self.store.all(Alert), key=lambda a: a.since)
        return [a for a in found if not state or a.state == state]

    # ---- the agent calls this every second
    def evaluate(self, now: float | None = None) -> list[Alert]:
        """Judge every rule: pending > firing (held for `for_seconds`) > resolved (at or below `resolve`).

        As in Prometheus, where nobody asks there is no percentile and no share of errors (NaN): the alert
        resolves. A metric that stopped arriving is stale, never zero: what fires stays, and it is said once.

        Returns:
            the alerts that changed their state now.
        """
        now = self.store.now() if now is None else now
        unfinished = {alert.rule: alert for alert in self._open()}
        read_now = [(rule, read(self.store, rule, now)) for rule in self.rules()]
        judged = [*read_now, *self.slo.readings(now)]
        changed = [self.judge(rule, seen, unfinished.get(rule.name), now) for rule, seen in judged]
        return [alert for alert in changed if alert]

    def judge(
        self, rule: AlertRule, reading: Reading | None, alert: Alert | None, now: float
    ) -> Alert | None:
        """Take a rule's unfinished alert one step on, by what was read; the alert, if its state changed."""
        above = reading is not None and reading.value > rule.above  # never of NaN: nothing to measure
        if alert and alert.state == "pending" and not above:
            self.store.remove(Alert, alert.key)  # it has to hold without a gap
            return None
        if reading is None:
            return None
        if alert is None or alert.state == "pending":
            if not above:
                return None
            known = alert or Alert(rule.name, "pending", now, reading.value, reading.subject)
            if now - known.since >= rule.for_seconds - JITTER_SECONDS:
                return self._fire(rule, known, reading)
            return None if alert else self._keep(known)
        if not reading.value > (rule.above if rule.resolve is None else rule.resolve):
            nothing = f"no requests any more, so there is no {rule.metric}"
            return self._resolve(
                alert, now, nothing if isnan(reading.value) else f"{rule.metric} is {reading.value:.4g}"
            )
        if reading.value > alert.value:  # a firing alert carries its peak
            self.store.put(replace(alert, value=reading.value))
        return None

    def _keep(self, alert: Alert) -> Alert:
        self.store.put(alert)
        return alert

    def _fire(self, rule: AlertRule, alert: Alert, seen: Reading) -> Alert:
        """Record the alert with its evidence: whose value, which release, and requests that show it."""
        subject = f"alert:{rule.name}"
        proof = [seen.subject, *([f"release:{seen.release}"] if seen.release else [])]
        if seen.subject.startswith("endpoint:"):
            lines = self.store.logs(endpoint=seen.subject.removeprefix("endpoint:"), since=alert.since - 10)
            slowest = sorted(lines, key=lambda line: -line.seconds)[:3]
            proof += [f"request:{line.request_id}" for line in slowest if line.request_id]
        elif rule.metric in ("error_ratio", "burn_rate"):
            lines = self.store.logs(since=alert.since - 10, level="ERROR", limit=3)
            proof += [f"request:{line.request_id}" for line in lines if line.request_id]
        for origin in proof:
            self.store.link(subject, "seen on", origin)
        message = f"{rule.summary} {rule.metric} is {seen.value:.4g} on {seen.subject}.".strip()
        self.store.event(
            "monitor", "alert.firing", subject, message, who="agent",
            why=f"{rule.metric} above {rule.above:g} for {rule.for_seconds:g} s",
            value=seen.value, above=rule.above, metric=rule.metric, evidence=proof,
        )  # fmt: skip
        return self._keep(
            replace(alert, state="firing", value=seen.value, subject=seen.subject, evidence=proof)
        )

    def _resolve(self, alert: Alert, now: float, why: str) -> Alert:
        seconds = now - alert.since
        message = f"After {seconds:.0f} s: {why}."
        self.store.event(
            "monitor", "alert.resolved", f"alert:{alert.rule}", message, who="agent", why=why,
            value=alert.value, seconds=seconds,
        )  # fmt: skip
        return self._keep(replace(alert, state="resolved", resolved=now))

    def _open(self) -> list[Alert]:
        return [alert for alert in self.store.all(Alert) if alert.state != "resolved"]
