"""The Lua files and how they are called: every script gets one queue's keys, in one order, before its arguments.

Scripts start with a shebang (Redis 7, Valkey 7.2): it carries the flag that lets what *ends* jobs run on a full server,
while what adds jobs is refused there.
"""

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from agentqueue.keys import KeySpace


@dataclass(frozen=True, slots=True)
class Script:
    """One script's source and its SHA-1, by which the server knows it (EVALSHA)."""

    name: str
    source: str
    sha: str


@cache
def load(name: str, *, allow_oom: bool = False) -> Script:
    """The script of that name. `allow_oom`: it may also run when the server is at `maxmemory`."""
    folder = files(__name__)
    flags = " flags=allow-oom" if allow_oom else ""
    common, body = (folder.joinpath(f"{part}.lua").read_text() for part in ("_common", name))
    source = f"#!lua{flags}\n{common}\n{body}"
    return Script(name, source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())


@cache
def queue_keys(queue: str) -> tuple[str, ...]:
    """The keys every script gets, in the order that `_common.lua` names."""
    keys = KeySpace(queue)
    rest = ("dead", "done", "paused", "limit", "wake", "stats", "workers", "reaped", "seq", "sweep", "drain")
    return (*keys.levels, *(keys.of(suffix) for suffix in rest))
