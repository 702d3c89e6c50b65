"""Images: built by buildah from the Dockerfiles, kept in the user's cache, handed over as archives."""

import contextlib
import hashlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tests.support.cluster.parts import PAUSE_IMAGE
from tests.support.cluster.program import (
    KEPT,
    MODULE,
    ROOT,
    Program,
    cache_folder,
    only_one,
    remove_all_but_newest,
)
from tests.support.cluster.shell import ClusterError, run

OFFICIAL_BASE = "docker.io/library/python:3.11-slim-bookworm"
DEBIAN_BASE = "localhost/python-base:bookworm"

LAYERS_KEPT = 300
"""Layers in the builder's storage: a change of the code makes about five, of some MB together."""


@dataclass(frozen=True)
class Image:
    """An image that is built from a Dockerfile of the repository (or a test's own)."""

    name: str
    dockerfile: Path
    context: Path = ROOT
    arguments: tuple[tuple[str, str], ...] = ()


WORKER = Image("localhost/agentqueue-worker:dev", ROOT / "worker" / "Dockerfile")
"""What agents' images start from."""

OPERATOR = Image("localhost/agentqueue-operator:dev", ROOT / "operator" / "Dockerfile")

REDIS = Image(
    "localhost/agentqueue-redis:dev", Path(__file__).parent / "redis" / "Dockerfile", Path(__file__).parent / "redis"
)
"""In place of the official image, which no registry here has: Redis 7 from Debian, not root, on a read-only root."""


class Builder(Protocol):
    """What builds images and has them."""

    def base(self) -> str:
        """What images stand on that name no other."""

    def identity(self, name: str) -> str:
        """What tells an image from others of its name; empty if there is none."""

    def build(self, image: Image) -> None:
        """Build an image, as far as its layers are not there."""

    def save(self, name: str, archive: Path) -> None:
        """Write an image into a file."""


class Buildah:
    """For Linux and root."""

    def base(self) -> str:
        """The official Python image, or Debian's where no registry answers."""
        return base()

    def identity(self, name: str) -> str:
        """The image's id."""
        return _identity(name)

    def build(self, image: Image) -> None:
        """Each change of the code leaves layers behind: many at last, and then those of no image go first."""
        if len(_buildah("images", "--all", "--quiet").splitlines()) > LAYERS_KEPT:
            _buildah("rmi", "--prune", timeout=300)
        _bud(image, {"BASE": base()} | dict(image.arguments))

    def save(self, name: str, archive: Path) -> None:
        """As Docker's format."""
        _push(name, archive)


class Docker:
    """For machines where buildah can't work, as for a cluster of kind's on a Mac."""

    def base(self) -> str:
        """The Dockerfiles' own."""
        return OFFICIAL_BASE

    def identity(self, name: str) -> str:
        """The image's id."""
        return run("docker", "images", "--no-trunc", "--quiet", name).strip()

    def build(self, image: Image) -> None:
        """By its Dockerfile."""
        given = [word for name, value in image.arguments for word in ("--build-arg", f"{name}={value}")]
        named = ("--tag", image.name, "--file", image.dockerfile)
        run("docker", "build", "--quiet", *given, *named, image.context, timeout=900)

    def save(self, name: str, archive: Path) -> None:
        """As Docker's format."""
        run("docker", "save", "--output", archive, name, timeout=300)


def pause_archive(program: Program) -> Path:
    """The image of a pod's sandbox, kept beside the program that is in it."""
    archive = program.folder / "pause.tar"
    if not archive.exists():
        image = Image(PAUSE_IMAGE, MODULE / "pause" / "Dockerfile", program.folder)
        with only_one("images"):
            _bud(image, {})
            _save(archive, image.name, _push)
    return archive


def build(image: Image) -> Path:
    """The image's archive, built anew if what it is made of has changed.

    Its file is never another image's, also when a second clone builds one of the same name meanwhile.
    """
    builder: Builder = Docker() if _builds_by_docker() else Buildah()
    with only_one("images"):
        folder, stem = cache_folder() / "images", re.sub(r"[/:]", "_", image.name)
        folder.mkdir(exist_ok=True)
        archive = folder / f"{stem}-{_made_of(image, builder)}.tar"
        known = archive.with_suffix(".id")
        if not (archive.exists() and known.exists() and known.read_text() == builder.identity(image.name)):
            builder.build(image)
            _save(archive, image.name, builder.save)
            known.write_text(builder.identity(image.name))
        os.utime(archive)  # those used last are kept
        remove_all_but_newest(folder.glob(f"{stem}-*.tar"), KEPT)
        remove_all_but_newest(folder.glob(f"{stem}-*.id"), 2 * KEPT)
        return archive


def _made_of(image: Image, builder: Builder) -> str:
    """A name for all that goes into an image: its Dockerfile, the files it may copy, the images it stands on."""
    made = hashlib.sha256(image.dockerfile.read_bytes() + builder.base().encode())
    for name, value in image.arguments:
        made.update(f"{name}={value}={builder.identity(value)}".encode())
    for file in sorted(_files(image.context)):
        made.update(f"{file.relative_to(image.context)}={file.stat().st_mode}={file.stat().st_size}=".encode())
        made.update(file.read_bytes())
    return made.hexdigest()[:12]


def _files(context: Path) -> Iterator[Path]:
    """A context's files; where it has a .dockerignore, those that it names (`!src`) after leaving out all (`*`)."""
    listed = context / ".dockerignore"
    lines = listed.read_text().splitlines() if listed.exists() else ["!."]
    for line in lines:
        if line.startswith("!"):
            top = context / line.removeprefix("!")
            yield from (file for file in ([top] if top.is_file() else top.rglob("*")) if _counts(file))


def _counts(file: Path) -> bool:
    return file.is_file() and "__pycache__" not in file.parts


def _save(archive: Path, name: str, save: Callable[[str, Path], None]) -> None:
    """Others see the archive only when it is whole."""
    draft = archive.with_suffix(".new")
    draft.unlink(missing_ok=True)
    save(name, draft)
    draft.rename(archive)


def base() -> str:
    """What the images stand on: the official Python image, or where no registry answers the same made of Debian."""
    for name in (OFFICIAL_BASE, DEBIAN_BASE):
        if _identity(name):
            return name
    try:
        _buildah("pull", "--quiet", OFFICIAL_BASE, timeout=120)
    except ClusterError:
        _bootstrap()
        return DEBIAN_BASE
    return OFFICIAL_BASE


def _bootstrap() -> None:
    """Debian's smallest system with Python: a minute, once."""
    packages = "python3,python3-venv,ca-certificates"
    with tempfile.TemporaryDirectory(prefix="agentqueue-base-", dir="/var/tmp") as folder:
        system, context = Path(folder) / "system", Path(folder) / "context"
        context.mkdir()
        command: list[str | Path] = [
            "debootstrap",
            "--variant=minbase",
            f"--include={packages}",
            "bookworm",
            system,
            *_mirror(),
        ]
        run("unshare", "--mount", "--", *command, timeout=600)
        for unused in ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/man", "usr/share/locale"):
            shutil.rmtree(system / unused, ignore_errors=True)
        run("tar", "--create", "--file", context / "system.tar", "--directory", system, ".", timeout=300)
        dockerfile = context / "Dockerfile"
        dockerfile.write_text('FROM scratch\nADD system.tar /\nENV LANG=C.UTF-8\nCMD ["python3"]\n')
        _bud(Image(DEBIAN_BASE, dockerfile, context), {})


def _mirror() -> list[str]:
    """Where this machine gets Debian from, if it is a Debian; else debootstrap's own default."""
    if shutil.which("apt-get") is None:
        return []
    pattern = ["$(REPO_URI)", "Codename: bookworm", "Component: main", "Created-By: Packages"]
    return run("apt-get", "indextargets", "--format", *pattern).splitlines()[:1]


def _bud(image: Image, arguments: Mapping[str, str]) -> None:
    given = [word for name, value in arguments.items() for word in ("--build-arg", f"{name}={value}")]
    with _network_settings() as mounts:
        command = ["bud", "--quiet", "--layers", "--isolation", "chroot", *mounts, *given]
        _buildah(*command, "--tag", image.name, "--file", image.dockerfile, image.context, timeout=900)


def _push(name: str, archive: Path) -> None:
    """Not as oci-archive: that compresses the layers, and takes four times as long."""
    _buildah("push", "--quiet", name, f"docker-archive:{archive}:{name}", timeout=300)


def _builds_by_docker() -> bool:
    by_buildah = sys.platform == "linux" and os.geteuid() == 0 and shutil.which("buildah")
    return not by_buildah and shutil.which("docker") is not None


def _identity(name: str) -> str:
    return _buildah("images", "--no-trunc", "--quiet", "--filter", f"reference={name}").strip()


def _buildah(*arguments: str | Path, timeout: float = 60) -> str:
    """In mounts of its own, which end with it, and in storage of its own, beside the machine's images."""
    storage = cache_folder() / "buildah"
    places = ("--root", storage / "root", "--runroot", storage / "run")
    return run("unshare", "--mount", "--", "buildah", *places, *arguments, timeout=timeout)


@contextlib.contextmanager
def _network_settings() -> Iterator[list[str]]:
    """What a build needs to fetch packages as this machine does: its index and authorities, mounted, never baked in."""
    kept = cache_folder() / "pip"
    kept.mkdir(exist_ok=True)
    with tempfile.NamedTemporaryFile("w", prefix="pip-", suffix=".conf") as config:
        settings = _pip_settings()
        authority = settings.pop("cert", None)
        mounts = {str(kept): "/root/.cache/pip:rw", config.name: "/etc/pip.conf:ro"}
        if authority:
            settings["cert"] = "/etc/pip-authorities.pem"
            mounts[authority] = f"{settings['cert']}:ro"
        if Path("/etc/ssl/certs").exists():
            mounts["/etc/ssl/certs"] = "/etc/ssl/certs:ro"
        config.write("[global]\n" + "".join(f"{name} = {value}\n" for name, value in settings.items()))
        config.flush()
        yield [word for source, target in mounts.items() for word in ("--volume", f"{source}:{target}")]


def _pip_settings() -> dict[str, str]:
    wanted = ("index-url", "extra-index-url", "trusted-host", "cert")
    listed = run(sys.executable, "-m", "pip", "config", "list").splitlines()
    found = (re.match(r"[\w:]+\.([\w-]+)='(.*)'$", line) for line in listed)
    return {match[1]: match[2] for match in found if match and match[1] in wanted}
