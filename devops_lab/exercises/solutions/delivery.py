"""Solutions from Welcome to Release: each body is what a reader would type."""

from __future__ import annotations

from devops_lab.exercises.base import Ask
from devops_lab.exercises.solutions import commit_on
from devops_lab.lab import Lab
from devops_lab.platform.git import git


# ---- Welcome
def welcome_1(lab: Lab, exercise: Ask) -> None:
    import json

    from devops_lab.platform.web import ask

    known = json.loads(ask(f"{lab.url}/api/orders?key=welcome-1").body)["orders"]
    wish = {"customer": "me", "lines": [{"item": 1, "quantity": 2}]}
    if known:  # a retry is the very same order
        lines = [{"item": line["item"], "quantity": line["quantity"]} for line in known[0]["lines"]]
        wish = {"customer": known[0]["customer"], "note": known[0]["note"], "lines": lines}
    headers = {"Idempotency-Key": "welcome-1", "Content-Type": "application/json"}
    for _ in range(2):
        answer = ask(f"{lab.url}/api/orders", json.dumps(wish).encode(), headers)
        print(answer.status, answer.text)


# ---- Plan
def plan_1(lab: Lab, exercise: Ask) -> None:
    exercise(lab, "plan-1").predict(lab.plan.forecast(remaining=40).p85)


def plan_2(lab: Lab, exercise: Ask) -> None:
    from devops_lab.model import Item, Need

    needs = [Need("database", storage_mb=20)]
    lab.plan.add(Item("nightly-backup", "Back up the orders", "operations", effort=2, value=3, needs=needs))


# ---- Code
def code_1(lab: Lab, exercise: Ask) -> None:
    test = "from bento.greeting import HELLO\n\n\ndef test_it():\n    assert HELLO\n"
    code = 'HELLO = "Enjoy your meal"\n'
    files = {"src/bento/greeting.py": code, "tests/unit/test_greeting.py": test}
    commit_on(lab, "learn/greeting", "feat: a greeting", files)


def code_2(lab: Lab, exercise: Ask) -> None:
    newest = max(git(lab.world.shop, "ls-tree", "--name-only", "main", "src/bento/migrations/").split())
    author = git(lab.world.shop, "log", "--diff-filter=A", "--format=%an", "main", "--", newest)
    exercise(lab, "code-2").answer(author)


# ---- Build
def build_1(lab: Lab, exercise: Ask) -> None:
    commit_on(lab, "learn/large", "docs: a large file", {"src/bento/static/large.txt": "a" * 100_000})
    before, after = lab.build.run("learn/large~1"), lab.build.run("learn/large")
    exercise(lab, "build-1").predict((after.bytes - before.bytes) / 1000)


def build_2(lab: Lab, exercise: Ask) -> None:
    from devops_lab.errors import BuildFailed

    path = "native/score.c" if "c" in lab.build.scorers() else "frontend/app.ts"
    good = git(lab.world.shop, "show", f"main:{path}") + "\n"
    commit_on(lab, "learn/broken-build", "fix: score", {path: good + "\nint broken( {\n"})
    try:
        lab.build.run("learn/broken-build")
    except BuildFailed as error:
        print(error)
    lab.code.checkout("learn/broken-build")
    lab.code.write(path, good)
    lab.code.commit("fix: score again")
    lab.code.checkout("main")
    lab.build.run("learn/broken-build")


def build_4(lab: Lab, exercise: Ask) -> None:
    from devops_lab.errors import BuildFailed
    from devops_lab.platform.git import identity

    exercise(lab, "build-4").start()
    try:
        lab.build.run("drill/build")
    except BuildFailed as error:
        print(error)
    lab.code.checkout("drill/build")
    git(lab.world.shop, "revert", "--no-edit", "HEAD", env=identity("me"))
    lab.code.checkout("main")
    lab.build.run("drill/build")


# ---- Test
def test_1(lab: Lab, exercise: Ask) -> None:
    exercise(lab, "test-1").predict(sum("unit" not in bug.suites for bug in lab.test.planted()))


def test_2(lab: Lab, exercise: Ask) -> None:
    test = (
        "\n"
        "def test_each_line_has_its_own_price(shop):\n"
        '    lines = [{"item": 62, "quantity": 1}, {"item": 1, "quantity": 3}]\n'
        '    prices = {item["id"]: item["price_cents"] for item in shop.get("/api/menu").json()["items"]}\n'
        '    total = shop.order(lines).json()["total_cents"]\n'
        "    assert total == prices[62] + 3 * prices[1]\n"
    )
    commit_on(lab, "learn/better-test", "test: own price", {"tests/unit/test_price.py": test})


def test_3(lab: Lab, exercise: Ask) -> None:
    exercise(lab, "test-3").start()
    commits = git(lab.world.shop, "rev-list", "--reverse", "main..drill/test").splitlines()
    good, bad = -1, len(commits) - 1  # the last is bad, what was before the first is good
    while bad - good > 1:
        middle = (good + bad) // 2
        code = git(lab.world.shop, "show", f"{commits[middle]}:src/bento/tips.py")
        good, bad = (good, middle) if "// 100" in code else (middle, bad)
    exercise(lab, "test-3").answer(commits[bad][:8])


# ---- Release
def release_1(lab: Lab, exercise: Ask) -> None:
    commit_on(lab, "learn/breaking", "feat!: another API", {"API.md": "new\n"})


def release_2(lab: Lab, exercise: Ask) -> None:
    import json

    bill = json.loads((lab.root / lab.release.registry()[-1].sbom).read_text("utf-8"))
    versions = {each["name"]: each["version"] for each in bill["components"]}
    exercise(lab, "release-2").answer(versions["starlette"])


def release_4(lab: Lab, exercise: Ask) -> None:
    import hashlib

    exercise(lab, "release-4").start()
    for name, digest in lab.release.registry()[-1].files.items():
        content = (lab.root / "work" / "mirror" / name).read_bytes()
        if digest != "sha256:" + hashlib.sha256(content).hexdigest():
            exercise(lab, "release-4").answer(name)
