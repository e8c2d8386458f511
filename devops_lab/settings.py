"""The lab's validated configuration: `lab.toml`, environment, parameters of a notebook."""

from __future__ import annotations

import json
import os
import tomllib
from dataclasses import dataclass
from pathlib import Path

from devops_lab.errors import BadInput, NotALab

FORMAT = 1  # of a lab directory; a newer one is refused, never guessed at
ENGINES = ("auto", "process", "docker", "swarm")
PACES = ("quick", "class")
MARKER = "lab.toml"
# The public images, each by the digest of its index for all platforms, so that a moved tag changes nothing:
# Python 3.12.14, registry 2.8.3, PostgreSQL 17.11. Where none can be pulled, `doctor --prepare` makes others.
PUBLIC_IMAGES = {
    "python": "python:3.12-slim@sha256:78387bc3881b8273120a12ebe6c1ab22b018ccc2c9adf565ae1ac9b536e184ea",
    "registry": "registry:2@sha256:a3d8aaa63ed8681a604f1dea0aa03f100d5895b6a58ace528858a7b332415373",
    "postgres": "postgres:17@sha256:d74eeac9a635390a49bc21bd49fccd973de707e2a53a76ac49b552b8712ec46f",
}


@dataclass(frozen=True)
class Settings:
    """How one lab works.

    Args:
        engine: "process" (the default), "docker", "swarm", or "auto".
        pace: "quick" for papermill and CI, "class" for a person who watches.
        learner: who acts, as written into the trail.
        replicas: wanted at first.
        grace_seconds: how long a replica may finish what is in flight.
        docker_host: address of the Docker engine; empty: DOCKER_HOST's, else the usual one.
    """

    engine: str = "process"
    pace: str = "quick"
    learner: str = "learner"
    replicas: int = 2
    grace_seconds: float = 10.0
    log_quota_bytes: int = 5_000_000
    docker_host: str = ""

    def __post_init__(self) -> None:
        choice("engine", self.engine, ENGINES)
        choice("pace", self.pace, PACES)
        if not 1 <= self.replicas <= 8:
            raise BadInput(
                f"replicas = {self.replicas}", expected="1 to 8", next_step="Ask for fewer replicas."
            )

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


def default_engine() -> str:
    """The engine of a new lab when none is named: $DEVOPS_LAB_ENGINE, else "process"."""
    return os.environ.get("DEVOPS_LAB_ENGINE") or Settings.engine


def default_lab_dir() -> Path:
    """Where the learner's lab lies when none is named: $DEVOPS_LAB_DIR, else `my-lab` in the checkout."""
    named = os.environ.get("DEVOPS_LAB_DIR")
    return Path(named).expanduser() if named else project_root() / "my-lab"


def project_root() -> Path:
    """The checkout (the folder that holds notebooks/), or the current directory when there is none."""
    beside = Path(__file__).resolve().parent.parent
    return beside if (beside / "notebooks").is_dir() else Path.cwd()


def read(root: Path) -> Settings:
    """Read and check `lab.toml` of the lab at `root`.

    Raises:
        NotALab: no such file, it does not parse, or its format is newer than this package's.
    """
    path = root / MARKER
    if not path.is_file():
        raise NotALab(
            f"{root} is not a lab: it has no {MARKER}." if root.exists() else f"There is no lab at {root}.",
            expected="a directory made by the lab, or one that does not exist yet",
            next_step="Name another directory, or an empty one to start a new lab there.",
        )
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise NotALab(f"{path} does not parse: {error}", next_step=f"Mend or remove {path}.") from error
    found = data.pop("format", 0)
    if not isinstance(found, int) or found > FORMAT:
        raise NotALab(
            f"{root} was made by a newer version of the lab (format {found}).",
            expected=f"format {FORMAT} or older",
            next_step="Update this package, or start a new lab in another directory.",
        )
    known = set(Settings.__dataclass_fields__)
    if unknown := sorted(set(data) - known):
        raise BadInput(
            f"{path} has unknown settings: {', '.join(unknown)}", expected=", ".join(sorted(known))
        )
    try:
        return Settings(**data)
    except TypeError as error:
        raise BadInput(f"{path}: {error}", next_step=f"Mend {path}.") from error


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
