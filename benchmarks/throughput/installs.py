"""Programs of the sides, kept in the user's cache folder: virtual environments, BullMQ's packages, a base commit."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks.throughput.registry import BASE, SIDES, Side

ROOT: Final = Path(__file__).parents[2]
PEERS: Final = Path(__file__).with_name("pyproject.toml")
BULLMQ: Final = ("bullmq@6.7.0", "ioredis@6.0.0")
INSTALL_S: Final = 600.0
"""Seconds that one installation may take."""


@dataclass(frozen=True, slots=True)
class Installed:
    """A side that can run: its interpreter and the environment of its processes."""

    name: str
    side: Side
    interpreter: str
    version: str
    versions: Mapping[str, str]
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_node(self) -> bool:
        """Return True for a side outside Python."""
        return self.name == "bullmq"

    @property
    def module(self) -> str:
        """Module of the side; the base runs the same one as this commit, on its own library."""
        return f"benchmarks.throughput.sides.{'agentqueue' if self.name == BASE else self.name}"

    def producer(self) -> list[str]:
        """Return the command that sends a load."""
        return [self.interpreter, *([_SCRIPT, "enqueue"] if self.is_node else ["-m", self.module])]

    def worker(self, url: str, concurrency: int) -> list[str]:
        """Return the command of one worker process."""
        arguments = [_SCRIPT, *self.side.worker] if self.is_node else self.side.worker
        return [
            self.interpreter,
            *(it.format(module=self.module, concurrency=concurrency, url=url) for it in arguments),
        ]

    def worker_variables(self, url: str, concurrency: int) -> dict[str, str]:
        """Return the variables that only the worker processes of the side need."""
        return {name: text.format(url=url, concurrency=concurrency) for name, text in self.side.variables.items()}

    def importing(self) -> tuple[list[str], list[str]]:
        """Return two commands: one starts the interpreter, the other one also imports the library."""
        if self.is_node:
            script = f"require('{self.environment['BENCH_MODULES']}/node_modules/bullmq'); process.exit()"
            return [self.interpreter, "-e", "process.exit()"], [self.interpreter, "-e", script]
        return [self.interpreter, "-c", "pass"], [self.interpreter, "-c", f"import {self.side.imports}"]

    def database(self, folder: Path) -> list[str]:
        """Return the command of the database that the side works on; empty if that is Redis."""
        arguments = [it.format(module=self.module, folder=folder) for it in self.side.database]
        return [self.interpreter, *arguments] if arguments else []

    def scheduler(self) -> list[str]:
        """Return the command of the process that delayed jobs need; empty if the worker needs none."""
        arguments = [it.format(module=self.module) for it in self.side.scheduler]
        return [self.interpreter, *arguments] if arguments else []


_SCRIPT: Final = str(Path(__file__).with_name("sides") / "bullmq.mjs")


def cache_folder() -> Path:
    """Return the folder for the sides' programs, made if needed."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "agentqueue" / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def install(name: str, *, base: str | None = None, here: bool = False) -> Installed:
    """Return the side, installed on first use.

    Args:
        name: key of the registry.
        base: git reference of the commit that the side `base` runs.
        here: run a Python side in this interpreter, which must have its packages.

    Raises:
        RuntimeError: the side needs a program that is not on this machine.
    """
    side = SIDES[name]
    if name == "bullmq":
        return _node(side)
    if name == BASE:
        if base is None:
            raise RuntimeError("the side `base` needs BASE=<git reference>")
        return _base(side, base)
    interpreter = sys.executable if here or not side.group else str(_environment(side.group))
    versions = _versions(interpreter, side.packages)
    version = versions[side.packages[0]] if side.group else _commit("HEAD")
    return Installed(name, side, interpreter, version, versions)


def _environment(group: str) -> Path:
    """Return the interpreter of a peer's virtual environment. New pins make a new one, as its name holds them."""
    pins = next(line for line in PEERS.read_text().splitlines() if line.startswith(f"{group} = "))
    key = "".join(char if char.isalnum() or char in "=." else "-" for char in pins.partition("[")[2].rstrip("]"))
    folder = cache_folder() / f"{group}-{key.replace('==', '-')}"
    return _make(folder, ["--group", f"{PEERS}:{group}"])


def _make(folder: Path, arguments: Sequence[str], cwd: Path = ROOT) -> Path:
    interpreter, stamp = folder / "bin" / "python", folder / "installed"
    if not stamp.exists():
        uv = Path(sys.executable).with_name("uv")
        _run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, folder], cwd)
        _run([uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", interpreter, *arguments], cwd)
        stamp.touch()
    return interpreter


def _node(side: Side) -> Installed:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise RuntimeError("Node.js is not installed: BullMQ cannot run")
    folder = cache_folder() / "-".join(BULLMQ)
    if not (folder / "node_modules" / ".package-lock.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        flags = ("--no-save", "--no-package-lock", "--no-audit", "--no-fund", "--silent")
        _run([npm, "install", *flags, "--prefix", folder, *BULLMQ], ROOT)
    found = [json.loads((folder / "node_modules" / name / "package.json").read_text()) for name in side.packages]
    versions = {it["name"]: str(it["version"]) for it in found} | {"node": _output([node, "--version"])}
    return Installed("bullmq", side, node, versions["bullmq"], versions, {"BENCH_MODULES": str(folder)})


def _base(side: Side, reference: str) -> Installed:
    """Check out a commit of this repository and install it, once per commit."""
    commit = _output(["git", "rev-parse", "--verify", f"{reference}^{{commit}}"])
    tree = cache_folder() / f"base-{commit[:12]}"
    if not tree.exists():
        _run(["git", "worktree", "prune"], ROOT)
        _run(["git", "worktree", "add", "--quiet", "--detach", tree, commit], ROOT)
    arguments = ["--constraint", "constraints.txt", ".", "./operator", "./worker"]
    interpreter = str(_make(tree / ".venv", arguments, tree))
    return Installed(BASE, side, interpreter, _commit(commit), _versions(interpreter, side.packages))


def _commit(reference: str) -> str:
    commit = _output(["git", "rev-parse", "--short=9", reference])
    changed = reference == "HEAD" and _output(["git", "status", "--porcelain", "--", "src", "worker"])
    return f"{commit}, changed" if changed else commit


def _versions(interpreter: str, packages: Sequence[str]) -> dict[str, str]:
    """Return the versions of the distributions that an interpreter has."""
    script = (
        "import importlib.metadata as m, json, sys\n"
        "found = {d.name.lower(): d.version for d in m.distributions()}\n"
        "print(json.dumps({p: found[p] for p in sys.argv[1:] if p in found}))"
    )
    versions: dict[str, str] = json.loads(_output([interpreter, "-c", script, *packages]))
    return versions


def _output(command: Sequence[str]) -> str:
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=INSTALL_S)
    return done.stdout.strip()


def _run(command: Sequence[str | Path], cwd: Path) -> None:
    subprocess.run(command, cwd=cwd, check=True, timeout=INSTALL_S)
