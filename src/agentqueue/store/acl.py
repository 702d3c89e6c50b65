"""The Redis ACL rule that AgentQueue needs: its commands, and the keys of its queues. No I/O here."""

import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Final

from agentqueue.errors import UsageError
from agentqueue.keys import ABORT, DEAD, DECISION, JOB, LAST_STEP_KEY, META, QUEUES, RESULT, RETRY, check_queue
from agentqueue.keys import IN_PROGRESS as HELD

CALLED: Final = (
    "BLPOP",  # an idle worker, and an operator at zero replicas, wait for a job
    "CLIENT|SETNAME",  # only for ?client_name= in the URL
    "EVALSHA",
    "GET",
    "HDEL",
    "HGET",
    "HGETALL",
    "INFO",  # refuses a server that would lose jobs: a replica, an evicting policy, an old version
    "LPUSH",
    "SADD",
    "SCRIPT|LOAD",
    "SELECT",  # only for a database other than 0
    "SET",
    "SMEMBERS",
    "ZCOUNT",
    "ZRANGE",
    "ZREVRANGE",
    "ZREVRANGEBYSCORE",
    "ZSCORE",
)
"""Commands that are called outside the scripts. A test compares them with what a server has seen.

redis-py also sends CLIENT SETINFO and ignores a refusal; Redis 7.0 does not know it, so no rule may name it.
"""
ARQ: Final = ("DEL", "DBSIZE", "EXEC", "EXISTS", "KEYS", "MULTI", "PING", "PSETEX", "UNWATCH", "WATCH", "ZADD", "ZREM")
"""What programs written for arq call besides: its clients and workers."""
_IN_SCRIPTS: Final = re.compile(r"(?:redis\.p?call\(|redis\.call, |mend\()'([A-Z]+)'")
_NAME: Final = re.compile(r"[^\s>#<~%&+@'\"-][^\s'\"]*")


@cache
def script_commands() -> frozenset[str]:
    """Return the commands that the Lua scripts call, as their sources name them."""
    sources = (file.read_text() for file in files("agentqueue.store.scripts").iterdir() if file.name.endswith(".lua"))
    return frozenset(name for source in sources for name in _IN_SCRIPTS.findall(source))


def commands(*, arq: bool = False) -> list[str]:
    """Return the commands that a user of AgentQueue must be allowed to run, sorted."""
    return sorted({*CALLED, *script_commands(), *(ARQ if arq else ())})


def keys(queues: Sequence[str] = ()) -> list[str]:
    """Return the patterns of the keys that are used for these queues; without any, for all queues.

    Raises:
        InvalidName: a queue's name that is none.
    """
    if not queues:
        return ["*"]
    shared = [
        QUEUES,
        ABORT,
        *(f"{prefix}*" for prefix in (JOB, HELD, RETRY, RESULT, META, DEAD, LAST_STEP_KEY, DECISION)),
    ]
    return [*shared, *(pattern for queue in queues for pattern in (check_queue(queue), f"{queue}:*"))]


def rule(user: str, queues: Sequence[str] = (), *, arq: bool = False) -> str:
    """Return the `ACL SETUSER` command for the user, with PASSWORD in the place of its password.

    Raises:
        InvalidName: a queue's name that is none. UsageError: a user's name that is none.
    """
    if not _NAME.fullmatch(user):
        raise UsageError(f"user {user!r:.80} must be a name without spaces and quotes")
    parts = [
        "ACL SETUSER",
        user,
        "reset on >PASSWORD",
        *(f"~{pattern}" for pattern in keys(queues)),
        *(f"+{name.lower()}" for name in commands(arq=arq)),
    ]
    return " ".join(parts)
