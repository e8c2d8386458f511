"""The images that everything else stands on: Python, an OCI registry, PostgreSQL.

`find(docker, "python")` answers with the image to use: a prepared one if it is there, else the public one
that settings.PUBLIC_IMAGES pins by digest, pulled if need be. `prepare(docker, "python")` makes one from the
distribution's packages, without any pull, as `devops-lab/python:<version>`; `clean` keeps those, since they
belong to the machine. Either kind is run the same way, as a user without rights:

| | user | data | configured by |
| --- | --- | --- | --- |
| python | 10001 in the shop's image | | PYTHON_VERSION is in its environment |
| registry | 10001 | /var/lib/registry | REGISTRY_* variables; port 5000 |
| postgres | 999 | /var/lib/postgresql/data | POSTGRES_USER, POSTGRES_PASSWORD, POSTGRES_DB; port 5432 |

With a read-only root, postgres needs /tmp and /var/run/postgresql as tmpfs; PGDATA names a folder *below* the
volume, so that it can be made aside and renamed. What follows the image's name are options of `postgres`.
"""

from __future__ import annotations

import re
import shutil
import tarfile
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from devops_lab.errors import DiskFull, EngineUnavailable, LabError
from devops_lab.platform.engines.docker import Docker, Gone, parse_repository_tag
from devops_lab.platform.engines.packages import Apt, Package, Root
from devops_lab.platform.settings import by_digest, named_image, public_image

OnProgress = Callable[[str, float], None]  # what is being done, and how far, from 0 to 1
BYTES_NEEDED = 800_000_000  # for lists, packages and archive together, and then some

PASSWD = """\
root:x:0:0:root:/root:/bin/sh
postgres:x:999:999:PostgreSQL:/var/lib/postgresql:/bin/sh
app:x:10001:10001:app:/app:/bin/sh
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
"""
GROUP = "root:x:0:\npostgres:x:999:\napp:x:10001:\nnogroup:x:65534:\n"
REGISTRY_CONFIG = """\
version: 0.1
storage:
  filesystem: {rootdirectory: /var/lib/registry}
  delete: {enabled: true}
http:
  addr: :5000
"""
# The same variables and options as the public image's. The cluster is made aside: it is whole, or not there.
POSTGRES_START = """\
#!/bin/sh
set -eu
: "${PGDATA:=/var/lib/postgresql/data/cluster}"
if [ ! -e "$PGDATA/PG_VERSION" ]; then
    : "${POSTGRES_PASSWORD:?is not set}" "${POSTGRES_USER:=postgres}" "${POSTGRES_DB:=$POSTGRES_USER}"
    umask 077
    rm -rf "$PGDATA.new"
    printf %s "$POSTGRES_PASSWORD" > /tmp/password
    initdb --pgdata="$PGDATA.new" --username="$POSTGRES_USER" --pwfile=/tmp/password \\
        --auth=scram-sha-256 --encoding=UTF8 --locale=C.UTF-8
    rm /tmp/password
    echo "host all all all scram-sha-256" >> "$PGDATA.new/pg_hba.conf"
    if [ "$POSTGRES_DB" != postgres ]; then
        echo "CREATE DATABASE \\"$POSTGRES_DB\\"" | postgres --single -j -D "$PGDATA.new" postgres
    fi
    mv "$PGDATA.new" "$PGDATA"
fi
exec postgres -D "$PGDATA" -c "listen_addresses=*" "$@"
"""


@dataclass(frozen=True)
class Recipe:
    """How an image is made from packages.

    Args:
        packages: what is wanted; what they need comes with them.
        without: a pattern of packages that are only needed to install, or for what is not used here.
        named_after: the package whose version names the image, and the part of that version.
        furnish: adds files of our own.
        config: what `docker import` records (instructions of a Dockerfile).
        finish: run once inside, before the image is done.
    """

    packages: tuple[str, ...]
    without: str
    named_after: tuple[str, str]
    furnish: Callable[[Root], None]
    config: tuple[str, ...]
    finish: tuple[str, ...] = ()


def furnish_python(root: Root) -> None:
    root.folder("app", owner=10001)
    root.folder("usr/bin")
    root.link("usr/bin/sh", "dash")
    root.link("usr/bin/python", "python3")


def furnish_registry(root: Root) -> None:
    root.folder("etc/docker/registry")
    root.file("etc/docker/registry/config.yml", REGISTRY_CONFIG)
    root.folder("var/lib/registry", owner=10001)


def furnish_postgres(root: Root) -> None:
    root.folder("usr/bin")
    root.link("usr/bin/sh", "dash")
    root.file("usr/bin/start-postgres", POSTGRES_START, 0o755)
    root.folder("var/lib/postgresql/data", owner=999, mode=0o700)
    root.folder("var/run/postgresql", owner=999, mode=0o3777)


RECIPES = {
    "python": Recipe(
        ("python3", "base-files", "coreutils", "dash", "libc-bin", "netbase", "tzdata"),
        "dpkg|tar|mawk|debconf|debianutils",
        ("python3", r"\d+\.\d+"),
        furnish_python,
        ("ENV LANG=C.UTF-8", "ENV PYTHON_VERSION={version}", "ENTRYPOINT []", 'CMD ["python3"]'),
        finish=("python3", "-m", "compileall", "-q", "/usr/lib"),  # else every start compiles what it imports
    ),
    "registry": Recipe(
        ("docker-registry",),
        "(?!docker-registry$|libc6$).*",  # a Go program: it needs the C library and nothing else
        ("docker-registry", r"\d+\.\d+\.\d+"),
        furnish_registry,
        (
            "USER 10001",
            "EXPOSE 5000",
            'ENTRYPOINT ["docker-registry", "serve"]',
            'CMD ["/etc/docker/registry/config.yml"]',
        ),
    ),
    "postgres": Recipe(
        ("postgresql", "base-files", "coreutils", "dash", "libc-bin"),
        r"lib(llvm|z3|perl|gdbm|db|json-|file-|text-|number-|sem|sep|pam-).*|perl.*|adduser|dpkg|tar|passwd"
        r"|locales|libc-l10n|openssl|ssl-cert|usrmerge|ucf|debconf|.*-common|sys.*|init-system-helpers",
        ("postgresql", r"\d+"),
        furnish_postgres,
        (
            "USER 999",
            "EXPOSE 5432",
            "ENV LANG=C.UTF-8",
            "ENV PATH=/usr/lib/postgresql/{version}/bin:/usr/bin",
            'ENTRYPOINT ["start-postgres"]',
            "CMD []",
        ),
    ),
}


# ---- which image to use
def there(docker: Docker) -> dict[str, str]:
    """The prepared images of this engine: what it is -> its tag (the newest where there are several)."""
    with docker.calls("list images"):
        images = docker.client.api.images("devops-lab/*")
    images.sort(key=lambda image: int(image["Created"]))
    tags = [tag for image in images for tag in image["RepoTags"] or [] if tag.startswith("devops-lab/")]
    return {tag.removeprefix("devops-lab/").partition(":")[0]: tag for tag in tags}


def find(docker: Docker, what: str) -> str:
    """The image to use for "python", "registry" or "postgres"; the public one is pulled if need be.

    Raises:
        EngineUnavailable: there is none, and none can be pulled from here.
    """
    if found := local(docker, what):
        return found
    wanted = public_image(what)
    name, _, digest = wanted.partition("@")
    try:
        with docker.calls(f"pull {name}"):
            repository, tag = parse_repository_tag(name)
            tag = digest or tag or "latest"
            docker.client.images.pull(repository, tag=tag, auth_config=docker.login(name))
    except (Gone, LabError) as error:
        reason, advice = why_not_pulled(str(error))
        raise EngineUnavailable(
            f"There is no {what} image here, and {name} can't be pulled: {reason}",
            expected=f"a prepared image devops-lab/{what}, or internet access for the Docker engine",
            next_step=f"{advice}devops-lab doctor --prepare makes it from this machine's Debian or Ubuntu "
            "packages.",
        ) from error
    return by_digest(wanted)


def local(docker: Docker, what: str) -> str:
    """The image to use that this engine has already: one that was asked for by name, else a prepared one."""
    if not named_image(what) and (prepared := there(docker).get(what)):
        return prepared
    try:
        public = by_digest(public_image(what))
        with docker.calls(f"look for {public}"):
            docker.client.images.get(public)
        return public
    except Gone:
        return ""


def why_not_pulled(words: str) -> tuple[str, str]:
    """What a refused pull means, in a few words without addresses, and what would help."""
    said = words.lower()
    if any(sign in said for sign in ("toomanyrequests", "rate limit", " 429")):
        return (
            "the registry's rate limit is reached (too many pulls from this address lately)",
            "Wait an hour, log in (docker login), or name a mirror (DEVOPS_LAB_MIRROR); or: ",
        )
    if "x509" in said or "certificate" in said:
        return (
            "the registry's certificate is not trusted by the engine",
            "Give the engine your organisation's certificate; or: ",
        )
    if any(sign in said for sign in ("unauthorized", "denied", "authentication required", "forbidden")):
        return ("the registry refuses it to who is not logged in", "Log in (docker login); or: ")
    if "no matching manifest" in said or "manifest unknown" in said or "not found" in said:
        return ("the registry has no such image for this machine", "Name another (DEVOPS_LAB_IMAGE_…); or: ")
    return words.splitlines()[0].rpartition(": ")[2].strip('")'), ""


# ---- making them
def prepare(docker: Docker, what: str, on_progress: OnProgress = lambda words, share: None) -> str:
    """Make an image from the distribution's packages; without any pull, and nothing half made is left.

    Args:
        docker: the engine that gets it.
        what: "python", "registry" or "postgres".
        on_progress: called often with what is being done, and how far all of it is (0 to 1).

    Returns:
        Its tag.

    Raises:
        MissingTool: this machine is no Debian or Ubuntu.
        LabError: packages can't be had, or the engine refused; carries their words.
        DiskFull: there is no room.
    """
    recipe = RECIPES[what]

    def stage(words: str, start: float, end: float) -> Callable[[float], None]:
        return lambda share: on_progress(words, start + (end - start) * share)

    with tempfile.TemporaryDirectory(prefix="devops-lab-") as name:
        enough_room(Path(name))
        apt = Apt(Path(name) / "apt", str(docker.version["Arch"]))
        on_progress("reading the lists of packages", 0.0)
        apt.update()
        packages = apt.resolve(recipe.packages, recipe.without)
        files = apt.download(packages, stage(f"downloading {len(packages)} packages", 0.15, 0.6))
        archive = Path(name) / "root.tar"
        with tarfile.open(archive, "w", format=tarfile.GNU_FORMAT) as tar:
            root = Root(tar)
            furnish(root, recipe)
            root.add_packages(files, stage("unpacking", 0.6, 0.75))
        on_progress("importing", 0.75)
        before = there(docker).get(what, "")
        with docker.calls("list images"):
            old = docker.client.images.get(before) if before else None
        tag = bring_in(docker, what, archive, version_of(recipe, packages))
    if old is not None and tag == before:
        with suppress(LabError, Gone), docker.calls("remove the old image"):
            docker.client.images.remove(str(old.id))  # stays while something was made from it
    on_progress("done", 1.0)
    return tag


def furnish(root: Root, recipe: Recipe) -> None:
    """What the packages' own scripts would have made."""
    root.folder("etc")
    root.file("etc/passwd", PASSWD)
    root.file("etc/group", GROUP)
    root.file("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n")
    root.folder("tmp", mode=0o1777)
    root.folder("var/tmp", mode=0o1777)
    recipe.furnish(root)


def version_of(recipe: Recipe, packages: list[Package]) -> str:
    name, part = recipe.named_after
    whole = next(package.version for package in packages if package.name == name)
    found = re.match(part, whole.rpartition(":")[2])
    assert found, whole
    return found[0]


def bring_in(docker: Docker, what: str, archive: Path, version: str) -> str:
    """Import an archive as an image, let it finish itself where it has to, and tag it."""
    recipe, tag = RECIPES[what], f"devops-lab/{what}:{version}"
    config = [line.replace("{version}", version) for line in recipe.config]
    with docker.calls(f"make the image {tag}"):
        said = docker.client.api.import_image(str(archive), changes=config)
        image = str(re.findall(r"sha256:[0-9a-f]{64}", said)[-1])
        try:
            if recipe.finish:
                finish(docker, image, recipe, tag, config)
            else:
                docker.client.images.get(image).tag(tag)
        except BaseException:
            docker.client.images.remove(image)
            raise
    return tag


def finish(docker: Docker, image: str, recipe: Recipe, tag: str, config: list[str]) -> None:
    """Run an image's last step in a container without a network, and keep what that made."""
    container = docker.client.containers.create(image, list(recipe.finish), network_mode="none")
    try:
        container.start()
        if container.wait()["StatusCode"]:
            raise LabError(f"{tag} can't be finished:\n{container.logs(tail=9).decode(errors='replace')}")
        container.commit(*tag.split(":"), changes=config)
    finally:
        container.remove(force=True)


def enough_room(folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < BYTES_NEEDED:
        raise DiskFull(
            f"Only {free / 1e6:.0f} MB are free for temporary files.",
            expected=f"{BYTES_NEEDED / 1e6:.0f} MB",
            next_step="Free some, or name another place by TMPDIR.",
        )
