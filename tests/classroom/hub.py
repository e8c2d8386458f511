"""A real JupyterHub on this machine: users with accounts of their own, one installation that all can read.

Root only: it makes the users, and removes them with all that they left.
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

import uv
from tornado.httpclient import AsyncHTTPClient, HTTPRequest
from tornado.websocket import websocket_connect

from devops_lab.platform import variables
from devops_lab.platform.processes import free_port
from tests.patience import until
from tests.production import get

ROOT = Path(__file__).resolve().parents[2]
PYTHON = "/usr/bin/python3"  # one that every user can reach
CONFIG = """
c.JupyterHub.bind_url = "http://127.0.0.1:{port}"
c.JupyterHub.hub_port = {hub_port}
c.JupyterHub.authenticator_class = "dummy"
c.JupyterHub.services = [{{"name": "teacher", "api_token": "{token}"}}]
scopes = ["admin:users", "admin:servers", "tokens"]
c.JupyterHub.load_roles = [{{"name": "teacher", "scopes": scopes, "services": ["teacher"]}}]
c.ConfigurableHTTPProxy.command = ["{proxy}"]
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
    absent = [name for name in ("node", "npm", "useradd", "userdel", PYTHON) if not shutil.which(name)]
    return f"not on PATH: {', '.join(absent)}" if absent else ""


def run(*command: str, env: dict[str, str] | None = None) -> None:
    done = subprocess.run(
        command, env=env or variables.fetcher(), capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"


@dataclass
class Hub:
    """A hub that runs, and what its teacher may do."""

    url: str
    token: str

    async def ask(self, path: str, method: str = "GET", token: str = "", **body: Any) -> tuple[int, Any]:
        """A request with a token; the answer's status, and its JSON or text."""
        sent = json.dumps(body) if method == "POST" else None
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
    """What a user runs."""
    done = subprocess.run(["ps", "-u", name, "-o", "args="], capture_output=True, text=True, check=False)
    return done.stdout.splitlines()


@contextmanager
def users(names: list[str], homes: Path) -> Iterator[None]:
    """Accounts of this machine, with homes that only they can read; they end with all that they run."""
    try:
        for name in names:
            run("useradd", "--create-home", "--base-dir", str(homes), "--shell", "/bin/bash", name)
            (homes / name).chmod(0o700)
        yield
    finally:
        for name in names:
            subprocess.run(["pkill", "-KILL", "-u", name], check=False)
            until(lambda: not processes(name), f"{name}'s processes to end", seconds=30)  # noqa: B023
            subprocess.run(["userdel", name], check=False, capture_output=True)


@contextmanager
def hub(names: list[str], **environment: str) -> Iterator[Hub]:
    """JupyterHub with these users; all that it made is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="hub-"))  # pytest's own folders can't be read by other users
    folder.chmod(0o755)
    own = variables.child()
    fetching = {name: value for name, value in variables.fetcher().items() if name not in own}
    env, proxy, token = folder / "env", folder / "proxy", secrets.token_hex(16)
    try:
        run("git", "clone", "--quiet", str(ROOT), str(folder / "lab"))
        run(uv.find_uv_bin(), "venv", "--quiet", "--python", PYTHON, str(env))
        install = [uv.find_uv_bin(), "pip", "install", "--quiet", "--python", str(env / "bin/python")]
        run(*install, "-r", str(folder / "lab/requirements.lock"), "jupyterhub", "-e", str(folder / "lab"))
        npm = ("npm", "install", "--silent", "--prefix", str(proxy), "configurable-http-proxy")
        run(*npm, env=dict(os.environ))  # which names its registry
        run(str(env / "bin/python"), "-m", "compileall", "-q", str(folder / "lab/devops_lab"))
        port, hub_port, proxy_port = free_port(), free_port(), free_port()
        (folder / "homes").mkdir()
        config = folder / "jupyterhub_config.py"
        config.write_text(
            CONFIG.format(
                port=port, hub_port=hub_port, proxy_port=proxy_port, token=token, env=env,
                proxy=proxy / "node_modules/.bin/configurable-http-proxy",
                environment={"DEVOPS_LAB_DIR": "~/my-lab", **fetching, **environment},
            )
        )  # fmt: skip
        config.chmod(0o600)
        state = folder / "state"
        state.mkdir(mode=0o700)
        with users(names, folder / "homes"), (folder / "hub.log").open("wb") as log:
            process = subprocess.Popen(
                [str(env / "bin/jupyterhub"), "-f", str(config)],
                cwd=state, env=variables.child(PATH=f"{env / 'bin'}:{os.environ['PATH']}"),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
            made = Hub(f"http://127.0.0.1:{port}", token)

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
    finally:
        shutil.rmtree(folder, ignore_errors=True)
