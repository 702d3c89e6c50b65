"""The programs of a cluster, built from tests/cluster/kube once and kept in the user's cache folder."""

import contextlib
import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.cluster.shell import ClusterError, run

ROOT = Path(__file__).parents[3]
MODULE = ROOT / "tests" / "cluster" / "kube"
VERSION = "v1.35.4"
"""Of Kubernetes, as go.mod pins it: a build from source knows none."""

KEPT = 3
"""Builds of different sources that stay, 160 MB each: another branch or clone has no need to build again."""


@dataclass(frozen=True)
class Program:
    """Where the built programs are."""

    folder: Path

    @property
    def kube(self) -> Path:
        """Every part of Kubernetes; `kubectl` and `helm` beside it are the same by other names."""
        return self.folder / "kube"

    @property
    def pause(self) -> Path:
        """The first process of a pod's sandbox and of a machine."""
        return self.folder / "pause"

    @property
    def machine(self) -> Path:
        """The same under the name by which machines are found in the process table."""
        return self.folder / "agentqueue-machine"


def cache_folder() -> Path:
    """What may be kept between runs: programs, images, the base they are built on."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "agentqueue"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextlib.contextmanager
def only_one(purpose: str) -> Iterator[None]:
    """Hold back other runs of this user that are at the same thing; the system lets go when a holder dies."""
    with (cache_folder() / f"{purpose}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def built() -> Program | None:
    """The programs, if there is nothing to build."""
    program = Program(cache_folder() / f"kube-{_version_of_sources()}")
    if not program.folder.exists():
        return None
    os.utime(program.folder)  # those used last are kept
    return program


def remove_all_but_newest(entries: Iterable[Path], kept: int) -> None:
    """Remove files and folders but those used last, as their time of change tells."""
    for entry in sorted(entries, key=_changed, reverse=True)[kept:]:
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _changed(entry: Path) -> float:
    return entry.stat().st_mtime


def build() -> Program:
    """The programs, built if need be: 6-9 minutes on 2 cores from nothing, seconds from Go's cache."""
    with only_one("build"):
        return built() or _build(Program(cache_folder() / f"kube-{_version_of_sources()}"))


def _version_of_sources() -> str:
    sources = sorted([*MODULE.glob("go.*"), *MODULE.rglob("*.go")])
    content = b"\0".join([VERSION.encode(), *(source.read_bytes() for source in sources)])
    return hashlib.sha256(content).hexdigest()[:12]


def _build(program: Program) -> Program:
    if shutil.which("go") is None:
        raise ClusterError("`go` is not installed: the test cluster is built from source with Go 1.25 or newer")
    draft = Program(program.folder.with_suffix(".new"))
    shutil.rmtree(draft.folder, ignore_errors=True)
    draft.folder.mkdir()
    _compile(draft.kube, ".", _stamp())
    _compile(draft.pause, "./pause", "-s -w")
    for name in ("kubectl", "helm"):
        (draft.folder / name).symlink_to("kube")
    draft.machine.hardlink_to(draft.pause)
    draft.folder.rename(program.folder)
    # A cluster that still runs by an older program has its files open; it ends well without their names.
    remove_all_but_newest(cache_folder().glob("kube-*"), KEPT)
    return program


def _stamp() -> str:
    major, minor, _ = VERSION.removeprefix("v").split(".")
    fields = {"gitVersion": VERSION, "gitMajor": major, "gitMinor": minor}
    return "-s -w " + " ".join(f"-X k8s.io/component-base/version.{name}={value}" for name, value in fields.items())


def _compile(target: Path, package: str, flags: str) -> None:
    static = {**os.environ, "CGO_ENABLED": "0"}
    run(
        "go", "build", "-buildvcs=false", "-ldflags", flags, "-o", target, package, cwd=MODULE, env=static, timeout=3600
    )
