"""A machine of the cluster: a set of namespaces (network, mounts, processes) that live and die with their process 1.

Killing that one process ends all others in there and, by the kernel's own doing, every mount; so nothing has to be
found and undone one by one.
"""

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.support.cluster.layout import HIDDEN, Layout
from tests.support.cluster.prerequisites import NAMESPACES
from tests.support.cluster.processes import Process, end, pid_namespace, processes
from tests.support.cluster.program import Program
from tests.support.cluster.shell import ClusterError, run, tail, until

TUNABLES = {
    "vm/overcommit_memory": 1,
    "vm/panic_on_oom": 0,
    "kernel/panic": 10,
    "kernel/panic_on_oops": 1,
    "kernel/keys/root_maxkeys": 1_000_000,
    "kernel/keys/root_maxbytes": 25_000_000,
}
"""What a kubelet sets for the whole kernel. Here it finds files that say so already, and the kernel stays as it is."""


Ready = Callable[["Part", "Machine"], bool]


@dataclass(frozen=True)
class Init:
    """A machine's process 1, as the process table shows it; `owner` is the identity of whom it must not outlive."""

    pid: int
    state: Path
    slot: int
    machine: str
    owner: str | None


def inits() -> Iterator[Init]:
    """Process 1 of every machine of every cluster on this host."""
    for process in processes():
        if Path(process.argv[0]).name == "agentqueue-machine" and len(process.argv) == 5:
            state, slot, machine, owner = process.argv[1:]
            yield Init(process.pid, Path(state), int(slot), machine, owner or None)


def is_running(part: "Part", machine: "Machine") -> bool:
    """The least that can be asked of a part without a health endpoint."""
    return machine.find(part) is not None


@dataclass(frozen=True)
class Part:
    """A program that runs on a machine."""

    name: str
    argv: tuple[str, ...]
    ready: "Ready" = is_running


@dataclass(frozen=True)
class Machine:
    """One set of namespaces of a cluster."""

    layout: Layout
    program: Program
    name: str
    owner: str | None = None

    @property
    def pid(self) -> int | None:
        """The host's number of its process 1; None when it is off."""
        mine = (init for init in inits() if (init.state, init.machine) == (self.layout.state, self.name))
        return next((init.pid for init in mine), None)

    def boot(self) -> None:
        """Make the namespaces, with folders in memory where programs write by habit."""
        known_by = (self.layout.state, str(self.layout.slot), self.name, self.owner or "")
        self._detached("init", *NAMESPACES, "--", self.program.machine, *known_by)
        until(lambda: self.pid, f"the first process of {self.name}")
        # Shared within the machine: a mount that the kubelet makes must show in containers.
        self.run("mount", "--make-rshared", "/")
        for folder in HIDDEN:
            self.run("mount", "-t", "tmpfs", "tmpfs", folder)
        self._pin_tunables()
        self.run("ip", "link", "set", "lo", "up")

    def crash(self) -> None:
        """End everything on it at once, like a power cut."""
        if (pid := self.pid) is not None:
            end([pid])
        # A power cut leaves no control groups either: those of pods that are gone hold up the next kubelet for 20 s.
        remove_control_groups(f"{self.layout.name}/{self.name}")

    def run(self, *command: str | Path, archive: Path | None = None, timeout: float = 60) -> str:
        """Standard output of a command run on the machine, with a file of the host as its input if given."""
        entered = self._enter("--net", "--mount", "--pid")
        if archive is None:
            return run(*entered, *command, timeout=timeout)
        with archive.open("rb") as source:
            return run(*entered, *command, source=source, timeout=timeout)

    def in_network(self, *command: str | Path, feed: str | None = None) -> str:
        """Standard output of a host's command run in the machine's network alone (the host's numbers are valid)."""
        return run(*self._enter("--net"), *command, feed=feed)

    def start(self, part: Part) -> None:
        """Start a part, its output in its log."""
        if self.find(part) is None:
            self._detached(part.name, *self._enter("--net", "--mount", "--pid"), *part.argv)

    def stop(self, part: Part, number: signal.Signals = signal.SIGKILL) -> None:
        """End a part and wait until it is gone; nothing if it does not run."""
        if (process := self.find(part)) is not None:
            end([process.pid], number)

    def find(self, part: Part) -> Process | None:
        """The running part. The kubelet and containerd fork before they start others: the eldest is meant."""
        if (init := self.pid) is None:
            return None
        namespace = pid_namespace(init)
        same = (process for process in processes() if process.argv == part.argv)
        return min((process for process in same if pid_namespace(process.pid) == namespace), key=_pid, default=None)

    def make_control_group(self) -> str:
        """A control group for the pods, so that they are this machine's own; its name, as the kubelet wants it."""
        name = f"/{self.layout.name}/{self.name}"
        for hierarchy in _hierarchies():
            (hierarchy / name.lstrip("/")).mkdir(parents=True, exist_ok=True)
        return name

    def await_ready(self, part: Part, *, timeout: float = 60) -> None:
        """Wait until a part answers; the error holds the end of its log."""
        log = self.layout.log(self.name, part.name)
        what = f"{part.name} on {self.name} to be ready"
        until(lambda: part.ready(part, self), what, timeout=timeout, explain=lambda: f"; its log ends:\n{tail(log)}")

    def _pin_tunables(self) -> None:
        for name, value in TUNABLES.items():
            pinned = self.layout.folder("tunables") / name.replace("/", ".")
            pinned.write_text(f"{value}\n")
            if (Path("/proc/sys") / name).exists():  # keys are optional in a kernel
                self.run("mount", "--bind", pinned, f"/proc/sys/{name}")

    def _enter(self, *namespaces: str) -> tuple[str, ...]:
        pid = self.pid
        if pid is None:
            raise ClusterError(f"machine {self.name} of {self.layout.state} is off")
        # Not `ip netns exec`: it remounts /sys and hides the control groups from the kubelet.
        return ("nsenter", "--target", str(pid), *namespaces, "--")

    def _detached(self, name: str, *command: str | Path) -> None:
        """Start a program that nobody has to wait for: it outlives this one, and process 1 takes it over."""
        environment = {"PATH": os.environ["PATH"], "HOME": str(Path.home())}
        with self.layout.log(self.name, name).open("ab") as log:
            line = ["setsid", "--fork", *map(str, command)]
            subprocess.run(line, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, check=True)


def remove_control_groups(name: str) -> None:
    """Remove a cluster's or a machine's control groups; the kernel may take a moment to see that they are empty."""
    for hierarchy in _hierarchies():
        top = hierarchy / name
        until(partial(_pruned, top), f"the end of the control group {top}")


def _pruned(top: Path) -> bool:
    for folder, _, _ in os.walk(top, topdown=False):
        with contextlib.suppress(OSError):
            Path(folder).rmdir()
    return not top.exists()


def _hierarchies() -> list[Path]:
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [Path(target) for _, target, kind, *_ in mounts if kind in ("cgroup", "cgroup2")]


def _pid(process: Process) -> int:
    return process.pid
