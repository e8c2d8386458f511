"""Environment variables: which of the reader's each child process gets. Standard library only.

By lists of what is let through: nobody knows all names that steer Python, git, pytest or Node.js, nor all
that hold a secret. What names a package index, a certificate or a proxy goes to who fetches packages.
"""

from __future__ import annotations

import locale
import os
import re
import sys
from fnmatch import translate
from pathlib import Path
from urllib.parse import urlsplit

HOME = Path(__file__).resolve().parents[2]  # where this package is imported from
UTF8 = "C.UTF-8"  # English, and paths with any letter; where it is unknown, Python takes UTF-8 all the same
LOOPBACK = ("localhost", "127.0.0.1", "::1")
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")

# `*` stands for any ending. What every program may need to run at all (a C compiler on macOS its SDK):
NEEDED = """PATH HOME USER LOGNAME SHELL TERM TZ TMPDIR TEMP TMP XDG_* UV_CACHE_DIR
    LD_LIBRARY_PATH DYLD_LIBRARY_PATH DYLD_FALLBACK_LIBRARY_PATH NIX_LD NIX_LD_* SDKROOT DEVELOPER_DIR"""
FETCHING = f"""UV_INDEX UV_INDEX_* UV_DEFAULT_INDEX UV_EXTRA_INDEX_URL UV_FIND_LINKS UV_INSECURE_HOST
    UV_OFFLINE UV_HTTP_* UV_REQUEST_TIMEOUT UV_KEYRING_PROVIDER UV_CREDENTIALS_DIR UV_NATIVE_TLS
    UV_SYSTEM_CERTS PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_NO_INDEX PIP_FIND_LINKS PIP_TRUSTED_HOST
    PIP_PROXY PIP_CERT PIP_CLIENT_CERT PIP_KEYRING_PROVIDER PIP_CONFIG_FILE PIP_CACHE_DIR PIP_TIMEOUT
    PIP_DEFAULT_TIMEOUT {" ".join(PROXIES)} NO_PROXY no_proxy NETRC APT_CONFIG
    SSL_CERT_FILE SSL_CERT_DIR SSL_CLIENT_CERT REQUESTS_CA_BUNDLE CURL_CA_BUNDLE NIX_SSL_CERT_FILE
    NODE_EXTRA_CA_CERTS NPM_CONFIG_REGISTRY npm_config_registry"""
LAB = "DEVOPS_LAB_* DOCKER_HOST DOCKER_CONTEXT DOCKER_CONFIG DOCKER_CERT_PATH DOCKER_TLS_VERIFY"
COMMAND = "CC MPLCONFIGDIR"
DESKTOP = """JUPYTER_* LANG LANGUAGE LC_* EDITOR VISUAL SSH_AUTH_SOCK BROWSER DISPLAY WAYLAND_DISPLAY
    XAUTHORITY DBUS_SESSION_BUS_ADDRESS DESKTOP_SESSION WSLENV WSL_*"""
CAUSES = {  # what a tool says when it can't fetch > the variables to look at
    r"certificate|\bssl|\btls": "CERT|CA_BUNDLE",
    r"proxy|tunnel": "PROXY",
    r"network was disabled": "OFFLINE",
    r"no solution|not found in|no matching": "INDEX|FIND_LINKS",
    r"connect|request|timed out|dns": "INDEX|FIND_LINKS|PROXY|OFFLINE|CERT|CA_BUNDLE",
}


def child(**more: str) -> dict[str, str]:
    """What any program gets: git, uv, compilers, tests, replicas, the proxy, customers."""
    from devops_lab.platform import places  # not above: git's hook runs this file by its path

    return _picked(NEEDED) | {"LC_ALL": UTF8} | places.usable() | more


def fetcher(**more: str) -> dict[str, str]:
    """What a program gets that fetches packages."""
    return child() | _picked(FETCHING) | more


def agent(**more: str) -> dict[str, str]:
    """What a lab's agent gets: also the addresses of engine and operations team."""
    return child() | _picked(LAB) | import_path() | {"PYTHONSAFEPATH": "1"} | more


def command(**more: str) -> dict[str, str]:
    """What this package's own commands get, and the kernels and pipelines that they start."""
    return fetcher() | _picked(LAB, COMMAND) | past_proxies() | import_path() | more


def reader(**more: str) -> dict[str, str]:
    """What JupyterLab gets: also what belongs to the reader's desktop, in the reader's language."""
    kept = command() | _picked(DESKTOP)
    if locale.getencoding().lower() != "utf-8":
        kept["LC_ALL"] = UTF8
    elif "LC_ALL" not in os.environ:
        del kept["LC_ALL"]
    return kept | more


def start_anew(command: list[str], kept: dict[str, str]) -> None:
    """Become `python COMMAND` with these variables: what steers Python acts before our first line runs."""
    if os.name == "posix":
        sys.stdout.flush()
        os.execve(sys.executable, [sys.executable, *command], kept)


def past_proxies() -> dict[str, str]:
    """The variables that keep requests to this machine off any proxy, where there is one."""
    told = os.environ.get("no_proxy") or os.environ.get("NO_PROXY", "")
    if told == "*" or not any(map(os.environ.get, PROXIES)):
        return {}
    names = [name.strip() for name in told.split(",") if name.strip()]
    both = ",".join([*names, *(name for name in LOOPBACK if name not in names)])
    return {"no_proxy": both, "NO_PROXY": both}


def blamed(words: str | None) -> str:
    """The reader's variables that may have led a fetch astray, as `NAME=value, …` without any password.

    Args:
        words: what the tool said of its failure: the variables that it quotes, else those that fit its cause;
            none when it has nothing to do with them. None: nobody knows what it said.
    """
    found = _picked(FETCHING)
    fitting = [{name: value for name, value in found.items() if words and _is_quoted(name, value, words)}]
    for cause, names in CAUSES.items():
        if words is None or re.search(cause, words, re.IGNORECASE):
            fitting.append({name: value for name, value in found.items() if re.search(names, name.upper())})
    first = next(filter(None, fitting), {}) if words is not None else fitting[-1]
    return ", ".join(f"{name}={re.sub('://[^/@]*@', '://***@', value)}" for name, value in first.items())


def import_path() -> dict[str, str]:
    """For a checkout that is used without being installed."""
    return {} if HOME.name.endswith("-packages") else {"PYTHONPATH": str(HOME)}


def _is_quoted(name: str, value: str, words: str) -> bool:
    where = urlsplit(value).netloc.rpartition("@")[2] if "://" in value else value
    return name in words or (len(where) > 3 and where in words)


def _picked(*lists: str) -> dict[str, str]:
    wanted = re.compile("|".join(translate(name) for name in " ".join(lists).split()))
    return {name: value for name, value in os.environ.items() if wanted.match(name)}


if __name__ == "__main__":  # git's hook, in whatever environment somebody pushes: `python -IS … -m MODULE …`
    sys.path.insert(0, str(HOME))
    start_anew(sys.argv[1:], command())
