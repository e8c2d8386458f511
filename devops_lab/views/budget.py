"""The view of an objective: the error budget as it burns, and how fast it does over each pair of windows."""

from __future__ import annotations

import math

from devops_lab.model import Budget, Burn
from devops_lab.views import style as look
from devops_lab.views.picture import Picture


def budget(found: Budget) -> Picture:
    """The error budget of an objective over time; below zero, more failed than was allowed."""
    slo = found.slo
    good = f"within {look.seconds(slo.within_seconds)}" if slo.within_seconds else "without a server's error"
    promise = (
        f"{100 * slo.objective:g} % of the requests{f' to {slo.endpoint}' if slo.endpoint else ''} {good}"
    )
    if not found.requests:
        return look.nothing(f"the error budget of {slo.name}", f"Promised: {promise}. Nobody has asked yet.")
    fig, (ax,) = look.figure(height=3.0)
    start = found.points[0][0]
    t, left = [at - start for at, _ in found.points], [100 * share for _, share in found.points]
    ax.step(t, left, where="pre", color=look.BLUE, linewidth=2.2)
    ax.axhline(0, color=look.RED, linestyle="--", linewidth=1.2)
    spent = [min(value, 0) for value in left]
    ax.fill_between(t, spent, 0, step="pre", color=look.RED, alpha=0.25)
    ax.set(xlim=(0, t[-1] or 1), ylim=(min(*left, 0) * 1.1 - 5, 108))
    look.label(ax, f"{slo.name}: {promise}", "seconds since the start", "error budget left, %")
    rows = [
        (one.name, *(look.seconds(seconds) for seconds in (one.long_seconds, one.short_seconds)),
         rate(one.long), rate(one.short), f"{one.factor:g}", _verdict(one))
        for one in found.burns
    ]  # fmt: skip
    heads = ("windows", "long", "short", "burn rate, long", "burn rate, short", "alert above", "")
    allowed = found.requests * (1 - slo.objective)
    caption = (
        f"{100 * found.left:.0f} % of the error budget of {slo.name} is left: {found.bad:.0f} bad of "
        f"{found.requests:.0f} requests, where {allowed:.0f} were allowed."
    )
    burning = ", ".join(one.name for one in found.burns if one.both > one.factor)
    alt = f"{caption} Burns too fast over: {burning or 'no pair of windows'}."
    return look.drawn(fig, caption, alt, html=look.table(heads, rows))


def rate(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3g}"  # where nobody asks, nothing is measured


def _verdict(one: Burn) -> look.Html:
    return look.badge("bad", "too fast") if one.both > one.factor else look.badge("good", "in bounds")
