"""The lab's validated configuration: `lab.toml`, environment, parameters of a notebook."""

from __future__ import annotations

import json
import os
import re
import tomllib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import msgspec
from msgspec import Meta

from devops_lab.errors import BadInput, Damaged, LabError, NotALab
from devops_lab.platform.identity import MARKER as MARKER
from devops_lab.platform.records import told

FORMAT = 1  # of a lab directory; a newer one is refused, never guessed at
ASLEEP = "asleep"  # in a lab's `run`, since its production sleeps
NOTEBOOKS, NOTEBOOKS_BASE = "notebooks", ".base"  # the reader's own, in the lab; what they were made from
ENGINES = ("auto", "process", "docker", "swarm")
PACES = ("quick", "class")
NAME = r"\A[^\x00-\x1f\x7f<>]*\w[^\x00-\x1f\x7f<>]*\Z"  # what git takes as a name, and writes as it is
A_NAME = "a name: one line, at most 100 characters, no < or >"
# The public images, each by the digest of its index for all platforms, so that a moved tag changes nothing:
# Python 3.12.14, registry 2.8.3, PostgreSQL 17.11. Where none can be pulled, `doctor --prepare` makes others.
PUBLIC_IMAGES = {
    "python": "python:3.12-slim@sha256:78387bc3881b8273120a12ebe6c1ab22b018ccc2c9adf565ae1ac9b536e184ea",
    "registry": "registry:2@sha256:a3d8aaa63ed8681a604f1dea0aa03f100d5895b6a58ace528858a7b332415373",
    "postgres": "postgres:17@sha256:d74eeac9a635390a49bc21bd49fccd973de707e2a53a76ac49b552b8712ec46f",
}


def named_image(what: str) -> str:
    """The image that the reader names for "python", "registry" or "postgres": $DEVOPS_LAB_IMAGE_PYTHON …"""
    return os.environ.get(f"DEVOPS_LAB_IMAGE_{what.upper()}", "")


def public_image(what: str) -> str:
    """The image to pull: the one that the reader names, else the pinned one.

    It comes from $DEVOPS_LAB_MIRROR where that is set: the prefix of a registry that passes on
    Docker Hub's official images, e.g. "harbor.example/hub".
    """
    if named := named_image(what):
        return named
    mirror = os.environ.get("DEVOPS_LAB_MIRROR", "").rstrip("/")
    return f"{mirror}/library/{PUBLIC_IMAGES[what]}" if mirror else PUBLIC_IMAGES[what]


def by_digest(image: str) -> str:
    """An image's name without its tag where a digest says which one it is: so an engine lists it."""
    name, at, digest = image.partition("@")
    return f"{re.sub(r':[^/:]+$', '', name)}@{digest}" if at else image


@dataclass(frozen=True)
class Settings:
    """How one lab works.

    Args:
        engine: "process" (the default), "docker", "swarm", or "auto".
        pace: "quick" for papermill and CI, "class" for a person who watches.
        learner: who acts, as written into the trail.
        replicas: wanted at first.
        grace_seconds: how long a replica may finish what is in flight.
        sleep_minutes: without a notebook or customers, after which production sleeps until the lab is opened;
            0 = never.
        docker_host: address of the Docker engine; empty: the one that the `docker` command would use.
        id: tells this lab from all others, also from its copies.
        home: where it lay when it was opened last (see `identity.Home`).
    """

    engine: str = "process"
    pace: str = "quick"
    learner: Annotated[str, Meta(pattern=NAME, max_length=100, description=A_NAME)] = "learner"
    replicas: Annotated[int, Meta(ge=1, le=8, description="1 to 8")] = 2
    grace_seconds: Annotated[float, Meta(ge=0, le=600, description="seconds, 0 to 600")] = 10.0
    log_quota_bytes: Annotated[int, Meta(ge=10_000, description="bytes, 10,000 at least")] = 5_000_000
    sleep_minutes: Annotated[float, Meta(ge=0, le=1e6, description="minutes, or 0 for never")] = 60.0
    docker_host: str = ""
    id: Annotated[str, Meta(pattern="^([0-9a-f]{8,32})?$", description="8 to 32 of 0-9a-f")] = ""
    home: str = ""

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(type(self), include_extras=True).items():
            value = getattr(self, name)
            try:
                msgspec.convert(value, kind)
            except msgspec.ValidationError as error:
                meant = next((m.description for m in getattr(kind, "__metadata__", ())), told(error))
                raise BadInput(f"{name} = {str(value)[:80]!r}", expected=meant) from error
        choice("engine", self.engine, ENGINES)
        choice("pace", self.pace, PACES)

    def seconds(self, quick: float, classroom: float) -> float:
        """Pick how long something is watched, in seconds, by the pace."""
        return quick if self.pace == "quick" else classroom


def choice(what: str, value: str, allowed: tuple[str, ...]) -> str:
    """Return `value` if it is one of `allowed`.

    Raises:
        BadInput: it is not; the message names the closest one.
    """
    if value in allowed:
        return value
    from difflib import get_close_matches

    near = get_close_matches(value, allowed, 1, 0.5)
    hint = f"Did you mean {near[0]!r}?" if near else f"Choose one of: {', '.join(allowed)}."
    raise BadInput(f"There is no {what} {value!r}.", expected=", ".join(allowed), next_step=hint)


def standard() -> Settings:
    """What a new lab has where nobody says otherwise; $DEVOPS_LAB_ENGINE and $DEVOPS_LAB_SLEEP_MINUTES count.

    Raises:
        BadInput: there is no such engine, or that is no number of minutes.
    """
    minutes = os.environ.get("DEVOPS_LAB_SLEEP_MINUTES") or Settings.sleep_minutes
    try:
        return Settings(
            engine=os.environ.get("DEVOPS_LAB_ENGINE") or Settings.engine, sleep_minutes=float(minutes)
        )
    except ValueError as error:
        raise BadInput(f"DEVOPS_LAB_SLEEP_MINUTES={minutes!r}", expected="minutes, or 0 for never") from error


def default_lab_dir() -> Path:
    """Where the learner's lab lies when none is named.

    $DEVOPS_LAB_DIR, else the lab whose folder of notebooks is the current one, else `my-lab` in the checkout.
    """
    if named := os.environ.get("DEVOPS_LAB_DIR"):
        return Path(named).expanduser()
    with suppress(OSError):  # the current directory may be gone
        if is_own_notebooks(here := Path.cwd()):
            return here.parent
    return project_root() / "my-lab"


def is_own_notebooks(path: Path) -> bool:
    """Is this a folder of the reader's own notebooks? They may be there before the lab is, and after it."""
    return path.name == NOTEBOOKS and (path / NOTEBOOKS_BASE).is_dir()


def project_root() -> Path:
    """The checkout (the folder that holds notebooks/), or the current directory when there is none."""
    beside = Path(__file__).resolve().parents[2]
    return beside if (beside / "notebooks").is_dir() else Path.cwd()


def read(root: Path) -> Settings:
    """Read and check `lab.toml` of the lab at `root`.

    Raises:
        NotALab: no such file, it does not parse, or its format is newer than this package's.
        BadInput: a setting is unknown, or its value is none that it can have.
    """
    path = root / MARKER
    if not path.is_file():
        raise NotALab(
            f"{root} is not a lab: it has no {MARKER}." if root.exists() else f"There is no lab at {root}.",
            expected="a directory made by the lab, or one that does not exist yet",
            next_step="Name another directory, or an empty one to start a new lab there.",
        )
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise NotALab(f"{path} does not parse: {error}", next_step=f"Mend or remove {path}.") from error
    except OSError as error:
        raise Damaged(f"{path} can't be read: {error.strerror}.") from error
    _check_format(root, data.pop("format", None))
    known = set(Settings.__dataclass_fields__)
    if unknown := sorted(set(data) - known):
        raise BadInput(
            f"{path} has unknown settings: {', '.join(unknown)}", expected=", ".join(sorted(known))
        )
    try:
        return Settings(**data)
    except BadInput as error:
        step = error.next_step or f"Mend {path}."
        raise BadInput(f"{path}: {error.wrong}", expected=error.expected, next_step=step) from error


def _check_format(root: Path, found: object) -> None:
    path = root / MARKER
    if not isinstance(found, int):
        wrong = f"{path} has no line `format`." if found is None else f"{path}: format = {found!r}"
        raise BadInput(wrong, expected=f"format = {FORMAT}, and the lab's engine", next_step=f"Mend {path}.")
    if found > FORMAT:
        raise NotALab(
            f"{root} was made by a newer version of the lab (format {found}).",
            expected=f"format {FORMAT} or older",
            next_step="Update this package, or start a new lab in another directory.",
        )


def salvage(root: Path) -> Settings:
    """What a damaged `lab.toml` still says, line by line, for who cleans up.

    The engine is "auto" where it is not known: then the best that answers is asked what it has of the lab.

    Raises:
        NotALab: its format is newer than this package's.
    """
    found: dict[str, Any] = {"engine": "auto"}
    text = ""
    with suppress(OSError):
        text = (root / MARKER).read_text(encoding="utf-8", errors="replace")
    for line in text.splitlines():
        with suppress(tomllib.TOMLDecodeError):
            for name, value in tomllib.loads(line).items():
                if name == "format" and isinstance(value, int):
                    _check_format(root, value)
                with suppress(LabError, TypeError):
                    Settings(**{name: value})
                    found[name] = value
    return Settings(**found)


def write(root: Path, settings: Settings) -> None:
    """Write `lab.toml`, whole or not at all."""
    lines = [f"format = {FORMAT}"]
    for name in Settings.__dataclass_fields__:
        value = getattr(settings, name)
        # A TOML basic string escapes as JSON does.
        lines.append(f"{name} = {json.dumps(value, ensure_ascii=False)}")
    temporary = root / (MARKER + ".new")
    temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    os.replace(temporary, root / MARKER)
