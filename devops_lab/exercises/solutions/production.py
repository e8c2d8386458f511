"""Solutions from Deploy on: each body is what a reader would type."""

from __future__ import annotations

from devops_lab.exercises.base import Ask
from devops_lab.lab import Lab
from devops_lab.platform.git import git


# ---- Deploy
def deploy_1(lab: Lab, exercise: Ask) -> None:
    def roll() -> float:
        return lab.deploy.run(lab.deploy.previous(), "rolling", replicas=4).seconds

    seconds = [roll(), roll()]
    while max(seconds[-2:]) > 1.25 * min(seconds[-2:]) and len(seconds) < 6:  # the machine was busy
        seconds.append(roll())
    exercise(lab, "deploy-1").predict((min(seconds) * max(seconds)) ** 0.5)  # a factor is allowed either way
    roll()


def deploy_2(lab: Lab, exercise: Ask) -> None:
    lab.operate.autoscale(None)  # by hand again
    lab.deploy.scale(3, why="lunch")


def deploy_5(lab: Lab, exercise: Ask) -> None:
    env = {"BENTO_DRAIN_SECONDS": "1"}
    lab.deploy.run(lab.deploy.current(), env=env, why="the load balancer is told in time")


def deploy_4(lab: Lab, exercise: Ask) -> None:
    exercise(lab, "deploy-4").start()
    version, pool = lab.deploy.current(), lab.deploy.pools()[0]
    print([(event.who, event.message, event.why) for event in lab.operate.inbox()[-2:]])
    if pool.env:
        lab.deploy.run(version, env={}, why="as before the night")
    else:
        lab.deploy.scale(pool.replicas - 1, why="as before the night")


# ---- Operate
def operate_1(lab: Lab, exercise: Ask) -> None:
    exercise(lab, "operate-1").answer(lab.operate.slowest(by_release=False)[0].endpoint)


def operate_2(lab: Lab, exercise: Ask) -> None:
    from devops_lab.model import ScalingPolicy

    lab.operate.autoscale(ScalingPolicy("p95_ms", target=50, min_replicas=2, max_replicas=4))


def operate_4(lab: Lab, exercise: Ask) -> None:
    import time

    exercise(lab, "operate-4").start()
    time.sleep(2)
    jobs = [each for each in lab.operate.processes() if ".py" in each.command]
    busiest = max(jobs, key=lambda each: each.cpu_seconds / max(lab.store.now() - each.started, 1))
    lab.operate.end_process(busiest.pid, why="it eats the processor")


# ---- Monitor
def monitor_1(lab: Lab, exercise: Ask) -> None:
    from devops_lab.model import AlertRule

    rule = AlertRule("orders-slow", "p95_ms", 200, for_seconds=3, resolve=100, endpoint="/api/orders")
    lab.monitor.add_rule(rule)


def monitor_2(lab: Lab, exercise: Ask) -> None:
    slowest = max(lab.monitor.logs(limit=100_000), key=lambda line: line.seconds)
    exercise(lab, "monitor-2").answer(slowest.request_id)


def monitor_3(lab: Lab, exercise: Ask) -> None:
    from devops_lab.platform.waits import until

    drill = lab.operate.drill()
    until(drill.detected, "a sign", seconds=120, evidence=drill.seen)
    drill.diagnose(drill._note.fault)  # only who hid it can know so soon: you compare the signs
    drill.mend()
    until(drill.restored, "service", seconds=120, evidence=lambda: f"{drill.restored()} {drill.seen()}")
    drill.post_mortem()


# ---- Repeat
def repeat_1(lab: Lab, exercise: Ask) -> None:
    from devops_lab.model import Item

    said = [*lab.store.events(kind="alert.*"), *lab.store.events(kind="complaint")]
    evidence = [said[-1].subject]
    item = Item("from-production", "What production said", "bug", effort=2, value=5, evidence=evidence)
    lab.plan.add(item)


def repeat_2(lab: Lab, exercise: Ask) -> None:
    exercise(lab, "repeat-2").answer(lab.release.find(lab.deploy.current()).commit[:8])


def repeat_4(lab: Lab, exercise: Ask) -> None:
    from devops_lab.platform.git import identity

    exercise(lab, "repeat-4").start()
    shop = lab.world.shop
    bad = git(shop, "log", "--format=%H", "--grep=soup of Tuesday", "main..learn/undo")
    git(shop, "switch", "--quiet", "learn/undo")
    git(shop, "revert", "--no-edit", bad, env=identity("me"))
    git(shop, "switch", "--quiet", "main")


# ---- Continuous
def continuous_1(lab: Lab, exercise: Ask) -> None:
    lab.pipeline.install_hook("delivery")
    text = f"Small commits, with a test each.\nPushes so far: {len(lab.pipeline.runs())}\n"
    lab.code.checkout("main")
    lab.code.write("CONTRIBUTING.md", text)
    lab.code.commit("docs: how to contribute")
    lab.pipeline.push()


def continuous_2(lab: Lab, exercise: Ask) -> None:
    def share() -> float:
        lab.pipeline.install_hook("deployment")
        lab.code.checkout("main")
        lab.code.write("NOTES.md", f"{len(lab.pipeline.runs())} pushes so far\n")
        lab.code.commit("fix: notes")
        run, _ = lab.pipeline.push()
        return 100 * sum(step.seconds for step in run.steps if step.name == "test") / run.seconds

    exercise(lab, "continuous-2").predict(share())
    share()


def continuous_4(lab: Lab, exercise: Ask) -> None:
    from devops_lab.platform.git import identity

    exercise(lab, "continuous-4").start()
    run = lab.pipeline.runs()[-1]
    print(run.stopped_at, run.cause)
    lab.code.checkout("drill/continuous")
    git(lab.world.shop, "revert", "--no-edit", "HEAD", env=identity("me"))
    lab.code.checkout("main")
    lab.pipeline.run("delivery", "drill/continuous")
