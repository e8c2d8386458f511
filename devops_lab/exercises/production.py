"""Checks of the exercises of Welcome, and from Deploy on; their texts are in the YAML files beside."""

from __future__ import annotations

import json
import tomllib
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from devops_lab.errors import TimedOut
from devops_lab.exercises.base import Said, Verdict, close, could_not, judged, not_yet, number, right, text
from devops_lab.model import PipelineRun, Pool, ScalingPolicy
from devops_lab.platform import web
from devops_lab.platform.git import git, run
from devops_lab.platform.waits import until

if TYPE_CHECKING:
    from devops_lab.lab import Lab

KEY = "welcome-1"
LOGS_SECONDS = 4.0  # until the agent, which reads every second, has read what a replica logged
WANTED, MANY = 3, 4
LEAST_MS, MOST_MS = 50, 5000  # a healthy order takes less; nobody waits for longer
RULE = "orders-slow"
ENDPOINT = "/api/orders"
GUESSES = 3
ITEM = "from-production"
VARIABLE, SECONDS = "BENTO_DRAIN_SECONDS", 15
FILE = "CONTRIBUTING.md"


# ---- Welcome
def own_order(lab: Lab, said: Said) -> Verdict:
    if not lab.url:
        return could_not("The shop does not run: run the cell that wakes it.")
    try:
        answer = web.ask(f"{lab.url}/api/orders?key={KEY}")
    except OSError as error:
        return could_not(f"The shop did not answer: {error}")
    if answer.status != 200:
        return could_not(f"The shop answered {answer.status}: {answer.text[:200]}")
    orders = json.loads(answer.body)["orders"]
    if not orders:
        return not_yet(f"The shop knows no order with the key {KEY}.")
    with suppress(TimedOut):
        until(lambda: sent_again(lab, orders[0]), "a retry", seconds=LOGS_SECONDS, every_seconds=0.2)
        return right(f"Order {orders[0]['id']} is in the shop's database once, though it was sent again.")
    if (
        lab.store.logs(endpoint="/api/orders", text="POST", since=orders[0]["created_at"] - 1, limit=1)[
            0
        ].status
        == 409
    ):
        return not_yet(
            "It was sent again with other lines, so the shop refused it: a retry is the same order."
        )
    return not_yet(
        f"Order {orders[0]['id']} is there, and was sent once. Send it once more, with the same key and the "
        "same lines, and compare the answers."
    )


def sent_again(lab: Lab, order: dict[str, Any]) -> bool:
    """Whether replicas answered a retry (200; a new order gets 201) since, which no customer had sent."""
    since = order["created_at"] - 1
    customers = {outcome.request_id for outcome in lab.store.requests(since=since)}
    lines = lab.store.logs(endpoint="/api/orders", text="POST", since=since, limit=100_000)
    return any(line.status == 200 and line.request_id not in customers for line in lines)


# ---- Deploy
def not_serving() -> Verdict:
    return could_not("Nothing runs in production: run the notebook's first cells, then check again.")


def rolling_seconds(lab: Lab, said: Said) -> Verdict:
    number(said)
    done = [d for d in lab.deploy.history() if d.strategy == "rolling" and d.state == "done"]
    later = [d for d in done if d.started > said.t]
    if not later:
        return not_yet("Kept. There was no rolling deployment since your prediction: do one, then check.")
    if (replicas := sum(pool.replicas for pool in lab.deploy.pools())) != MANY:
        return not_yet(f"Kept. {replicas} replicas were rolled out; {MANY} are asked for.")
    return close(said, later[-1].seconds, 1.5, "s")


def three_replicas(lab: Lab, said: Said) -> Verdict:
    pools = [pool for pool in lab.store.all(Pool) if pool.weight > 0]
    if not pools or not lab.url:
        return not_serving()
    if len(pools) > 1:
        return not_yet(f"{len(pools)} pools share the traffic; finish the deployment first.")
    wanted = pools[0].replicas
    healthy = sum(r.pool == pools[0].name and r.state == "healthy" for r in lab.replicas())
    if lab.store.last(ScalingPolicy):
        return not_yet("An autoscaler is on: the number will not stay as you set it.")
    if wanted != WANTED:
        tells = "lunch comes, and they will queue" if wanted < WANTED else "one stands about, and is paid for"
        return not_yet(f"{wanted} replicas are wanted: {tells}.")
    if healthy != WANTED:
        return not_yet(f"{wanted} replicas are wanted, and {healthy} healthy so far.")
    return right(f"{WANTED} replicas of {pools[0].release} are healthy and share the traffic.")


def drains_longer(lab: Lab, said: Said) -> Verdict:
    pools = [pool for pool in lab.deploy.pools() if pool.weight > 0]
    if not pools or not lab.url:
        return not_serving()
    env = pools[0].env
    if not env:
        return not_yet("What serves has no configuration of its own: its replicas stop without a word.")
    if VARIABLE not in env:
        return not_yet(f"What serves got {', '.join(env)}; {VARIABLE} is what the shop reads.")
    if float(env[VARIABLE]) != 1:  # what is no number never gets healthy
        return not_yet(f"{VARIABLE} is {env[VARIABLE]}: one second is asked for.")
    return right(f"{pools[0].release} serves with {VARIABLE}={env[VARIABLE]}, rolled out like a release.")


def grace(lab: Lab, said: Said) -> Verdict:
    try:
        seconds = tomllib.loads((lab.root / "lab.toml").read_text("utf-8")).get("grace_seconds")
    except (OSError, ValueError) as error:
        return not_yet(f"lab.toml can't be read any more: {error}")
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        return not_yet(f"lab.toml says grace_seconds = {seconds!r}: a bare number of seconds is asked for.")
    if seconds < SECONDS:
        return not_yet(f"After {seconds:g} s a replica is cut off: the slowest order takes longer.")
    if seconds > 2 * SECONDS:
        return not_yet(f"A replica that hangs would hold up a deployment for {seconds:g} s.")
    return right(f"From the next opening on, a replica may finish its work for {seconds:g} s.")


# ---- Operate
def slowest_endpoint(lab: Lab, said: Said) -> Verdict:
    answered = text(said).split()[-1]  # "GET /api/search" names it as well
    rows = lab.operate.slowest(by_release=False)
    if not rows:
        return could_not("No customer was here yet: run some load first.")
    by_name = {_plain(row.endpoint): row for row in rows}
    named = by_name.get(_plain(answered))
    if named is None:
        used = ", ".join(row.endpoint for row in rows)
        return not_yet(f"{answered!r} is no endpoint that customers used: {used}.")
    p95_ms = f"{named.p95 * 1000:.0f} ms"
    if named == rows[0]:
        return right(f"{named.endpoint}: one request in twenty takes more than {p95_ms}.")
    return not_yet(f"{named.endpoint} has a p95 of {p95_ms}; another one is slower.")


def _plain(endpoint: str) -> str:
    return endpoint.strip("/\"'`").casefold()


def latency_policy(lab: Lab, said: Said) -> Verdict:
    policy = lab.store.last(ScalingPolicy)
    if policy is None:
        return not_yet("Production is scaled by hand: there is no policy.")
    if policy.metric != "p95_ms":
        return not_yet(f"The policy watches {policy.metric}; customers feel response times.")
    least, most = policy.min_replicas, policy.max_replicas
    if (least, most) != (2, 4):
        return not_yet(f"It allows {least} to {most} replicas; asked for are 2 to 4.")
    if not 10 <= policy.target <= 500:
        return not_yet(f"A target of {policy.target:g} ms is none that a customer would notice, or too late.")
    return right(f"The agent keeps p95 at {policy.target:g} ms with 2 to 4 replicas.")


# ---- Monitor
def order_rule(lab: Lab, said: Said) -> Verdict:
    rules = {rule.name: rule for rule in lab.monitor.rules()}
    if not (rule := rules.get(RULE)):
        return not_yet(f"There is no rule {RULE!r}; there are {', '.join(rules)}.")
    if rule.metric not in ("p95_ms", "p99_ms") or rule.endpoint != ENDPOINT:
        seen = f"{RULE} watches {rule.metric} of {rule.endpoint or 'everything'}"
        return not_yet(f"{seen}, not the slow end of {ENDPOINT}.")
    if not LEAST_MS <= rule.above <= MOST_MS:
        return not_yet(
            f"{RULE} fires above {rule.above:g} ms: healthy orders take a few, and nobody waits for "
            f"{MOST_MS}. {rule.metric} is in milliseconds."
        )
    if not 1 <= rule.for_seconds <= 300:
        return not_yet(f"{RULE} fires after {rule.for_seconds:g} s: at the first slow second, or too late.")
    if rule.resolve is None or rule.resolve >= rule.above:
        return not_yet(f"{RULE} fires and resolves at {rule.above:g} ms: it will flap.")
    if rule.resolve <= 1:
        return not_yet(f"{RULE} resolves at {rule.resolve:g} ms: no order is as quick, so it never will.")
    seen = f"{RULE} fires above {rule.above:g} ms for {rule.for_seconds:g} s"
    return right(f"{seen}, and resolves below {rule.resolve:g}.")


def incident(lab: Lab, said: Said) -> Verdict:
    blind = [drill for drill in lab.operate.drills() if drill.blind]
    if not blind:
        return not_yet("No blind drill was started in this lab yet.")
    solved = [d for d in blind if d.state == "restored" and d.diagnosed and len(d.guesses) <= GUESSES]
    last = (solved or blind)[-1]
    if last.state == "running":
        return not_yet(f"Drill {last.id} still runs: bring service back, until `restored()` says so.")
    if last.state != "restored":
        return not_yet(f"Drill {last.id} is {last.state}: it was not you who brought service back.")
    if not solved:
        named = "" if last.diagnosed else ", and the fault was not named"
        return not_yet(f"Drill {last.id} was restored, after {len(last.guesses)} guesses{named}.")
    items = (*lab.plan.backlog(), *lab.plan.finished())
    acted = [item for item in items if f"drill:{last.id}" in item.evidence]
    if not acted:
        return not_yet(f"No item in the backlog has drill:{last.id} as its evidence.")
    took = ", ".join(f"{what} after {seconds:.0f} s" for what, seconds in last.seconds.items())
    return right(f"The {last.fault} was {took}; {acted[0].id} is in the backlog.")


def slowest_request(lab: Lab, said: Said) -> Verdict:
    answered = text(said).removeprefix("request:")
    lines = [line for line in lab.store.logs(limit=1_000_000) if line.request_id and line.seconds > 0]
    if not lines:
        return could_not("No request was logged yet: run some load first.")
    ranked = sorted(lines, key=lambda line: line.seconds, reverse=True)
    place = next((n for n, line in enumerate(ranked, 1) if line.request_id == answered), 0)
    if answered.startswith("/"):
        return not_yet(f"{answered} is an endpoint; one of its requests is asked for.")
    if not place:
        return not_yet(f"No logged request has the id {answered!r}.")
    line = ranked[place - 1]
    took = f"{line.endpoint} by {line.replica} took {line.seconds * 1000:.0f} ms"
    seen = f"{took}: place {place} of {len(ranked)}"
    return right(f"{seen}.") if place <= 3 else not_yet(f"{seen}; there are slower ones.")


# ---- Repeat
def evidenced_item(lab: Lab, said: Said) -> Verdict:
    alerts = lab.store.events(kind="alert.*", limit=100_000)
    subjects = {event.subject for event in (*alerts, *lab.store.events(kind="complaint", limit=100_000))}
    if not subjects:
        return could_not("Production has not told anything yet: no alert, no complaint.")
    items = {item.id: item for item in (*lab.plan.finished(), *lab.plan.backlog())}
    if ITEM not in items:
        return not_yet(f"The backlog has no item {ITEM!r}.")
    if not (evidence := items[ITEM].evidence):
        return not_yet(f"{ITEM} carries no evidence: what did production say?")
    if not (known := [subject for subject in evidence if subject in subjects]):
        return not_yet(f"{evidence[0]!r} is no alert or complaint of this lab.")
    return right(f"{ITEM} carries its evidence into the backlog: {known[0]}.")


def closed(lab: Lab, said: Said) -> Verdict:
    done = [item for item in lab.plan.finished() if item.id.startswith(ITEM)]
    if any(item.id.startswith(ITEM) for item in lab.plan.backlog()):
        return not_yet(f"{ITEM} still waits.")
    if not done:
        return not_yet(f"There is no item {ITEM}; the first exercise makes it.")
    told = [item for item in done if lab.store.events(kind="repeat.closed", subject=f"item:{item.id}")]
    if not told:  # what is done can't be changed any more
        return not_yet(
            f"{done[-1].id} is done, but carries no evidence, so nobody knows what asked for it. "
            f"Add {ITEM}-{len(done) + 1} with its evidence, and finish that."
        )
    return right(f"{told[-1].id} was done on {told[-1].done_on}, and {told[-1].evidence[0]} is answered.")


def origin_of_production(lab: Lab, said: Said) -> Verdict:
    answered = text(said).removeprefix("commit:").casefold()
    version = lab.deploy.current()
    if not version or not lab.url:
        return not_serving()
    commit = lab.release.find(version).commit
    if len(answered) >= 7 and commit.startswith(answered):
        return right(f"{version} was built from {commit[:8]}.")
    if len(answered) < 7:
        return not_yet(f"{answered!r} is too short to name a commit for sure.")
    if run(lab.world.shop, "cat-file", "-e", f"{answered}^{{commit}}").returncode == 0:
        return not_yet(
            f"{answered} is a commit of the shop, but {version} serves, and comes from another one."
        )
    return not_yet(f"The shop's history has no commit {answered!r}.")


# ---- Continuous
def own_push(lab: Lab, said: Said) -> Verdict:
    runs = [r for r in lab.store.all(PipelineRun) if has_file(lab, r.commit)]
    if not runs:
        return not_yet(f"The pipeline has not seen a commit with a {FILE} yet.")
    delivered = [r for r in runs if r.mode == "delivery"]
    if not delivered:
        mode = runs[0].mode
        return not_yet(f"Your push ran in the mode {mode}; asked for is delivery: nothing is released.")
    last = delivered[-1]
    lines = git(lab.world.origin, "show", f"{last.commit}:{FILE}").split("\n")
    if len([line for line in lines if line.strip()]) < 2:
        return not_yet(f"{FILE} is there, but says next to nothing: write a few lines.")
    if not last.ok:
        return not_yet(f"Your push stopped at {last.stopped_at}: {last.cause}")
    return right(f"{last.commit[:8]} went through Plan > Code > Build > Test, and was not released.")


def has_file(lab: Lab, commit: str) -> bool:
    return run(lab.world.origin, "cat-file", "-e", f"{commit}:{FILE}").returncode == 0


def test_share(lab: Lab, said: Said) -> Verdict:
    value = number(said)
    done = [r for r in lab.store.all(PipelineRun) if r.mode == "deployment" and r.ok and r.started > said.t]
    if not done:
        return not_yet(
            "Kept. No push was deployed since your prediction: push in the mode deployment, then check."
        )
    last = done[-1]
    share = 100 * sum(step.seconds for step in last.steps if step.name == "test") / last.seconds
    seen = f"You predicted {value:g} %; of {last.seconds:.1f} s the tests took {share:.0f} %"
    if abs(value - share) <= 15:
        return right(f"{seen}.")
    return judged(False, f"{seen}: {'more' if value < share else 'less'} than you thought.")
