"""Lua scripts, one file per command, and the includes that they share.

Every script gets the keys of one queue, in the order of `queue_keys`, before its arguments. Its first line names the
includes that it uses, such as `--! include keys leases`, and an include may name others in the same way. `load` puts
each of them before the script once, in the order in which they are named, so a script carries only what it uses. The
script itself is a function behind them.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final

from agentqueue.keys import KeySpace

_INCLUDES: Final = re.compile(r"--! include ([a-z_ ]+)\n")


@dataclass(frozen=True, slots=True)
class Script:
    """Source of a script, and the SHA-1 by which the server knows it (EVALSHA)."""

    name: str
    source: str
    sha: str


@cache
def load(name: str, *, allow_oom: bool = False) -> Script:
    """Return the script of that name, with its includes.

    Args:
        name: the file's name without `.lua`.
        allow_oom: let the script run when the server is at `maxmemory`. Scripts that end jobs need it; without it the
            server refuses a script that adds jobs. The flag stands in the shebang (Redis 7.0, Valkey 7.2).

    Raises:
        FileNotFoundError: there is no such script, or it names an include that does not exist.
    """
    flags = " flags=allow-oom" if allow_oom else ""
    *includes, script = dict.fromkeys(_with_includes(name))
    # Lua allows 200 local variables per function, and a chunk is one. So the script has a function of its own.
    parts = (f"#!lua{flags}", *map(_read, includes), "return (function()", _read(script), "end)()")
    source = "\n".join(parts)
    return Script(name, source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())


def _with_includes(name: str) -> Iterator[str]:
    """Yield the includes of a file, each after those that it needs itself, and then the file; some more than once."""
    declared = _INCLUDES.match(_read(name))
    for include in declared[1].split() if declared else ():
        yield from _with_includes(f"includes/{include}")
    yield name


def _read(name: str) -> str:
    return files(__name__).joinpath(f"{name}.lua").read_text()


def read_all() -> dict[str, str]:
    """Return the text of every script and every include, by name."""
    folder = files(__name__)
    names = [file.name for file in folder.iterdir()]
    names += [f"includes/{file.name}" for file in folder.joinpath("includes").iterdir()]
    return {name: _read(name) for name in sorted(file.removesuffix(".lua") for file in names if file.endswith(".lua"))}


@cache
def queue_keys(queue: str) -> tuple[str, ...]:
    """Return the keys that every script gets, in the order that includes/keys.lua decodes."""
    keys = KeySpace(queue)
    suffixes = ("dead", "done", "paused", "limit", "wake", "stats", "workers", "reaped", "seq", "sweep", "drain")
    return (*keys.levels, *(keys.of(suffix) for suffix in suffixes))
