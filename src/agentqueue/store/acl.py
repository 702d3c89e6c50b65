"""The Redis ACL rule that AgentQueue needs: its commands and the keys of its queues. Does no I/O."""

import re
from collections.abc import Sequence
from functools import cache
from typing import Final

from agentqueue.errors import UsageError
from agentqueue.keys import (
    ABORT,
    CASCADE,
    CASCADES,
    CHILDREN,
    DEAD,
    DECISION,
    IN_PROGRESS,
    JOB,
    JOURNAL,
    LAST_CALL_KEY,
    LIMIT,
    LIMIT_CALLS,
    LIMIT_LINE,
    LIMIT_UNITS,
    LIMITS,
    META,
    QUEUES,
    RESULT,
    RETRY,
    RETURNS,
    SIGNALS,
    STREAM,
    check_queue,
)
from agentqueue.store.scripts import read_all

CALLED: Final = (
    "BLPOP",  # idle workers wait for a job, and so does the operator at zero replicas
    "CLIENT|SETNAME",  # only for ?client_name= in the URL
    "EVALSHA",
    "GET",
    "HDEL",
    "HGET",
    "HGETALL",
    "HMGET",
    "INFO",  # to refuse servers that would lose jobs: replicas, evicting policies, old versions
    "LPUSH",
    "SADD",
    "SCRIPT|LOAD",
    "SELECT",  # only for a database other than 0
    "SET",
    "SMEMBERS",
    "XRANGE",
    "XREAD",
    "ZCOUNT",
    "ZRANGE",
    "ZREVRANGE",
    "ZREVRANGEBYSCORE",
    "ZSCORE",
)
"""Commands that are called outside the scripts. A test compares them with the commands that a server has run.

redis-py also sends CLIENT SETINFO and ignores a refusal. Redis 7.0 does not have it, so a rule must not name it.
"""
ARQ: Final = ("DEL", "DBSIZE", "EXEC", "EXISTS", "KEYS", "MULTI", "PING", "PSETEX", "UNWATCH", "WATCH", "ZADD", "ZREM")
"""Commands that arq's own clients and workers call besides."""
_IN_SCRIPTS: Final = re.compile(r"(?:redis\.p?call\(\s*|redis\.call, |call_or_reset\()'([A-Z]+)'")
_PREFIXES: Final = (
    CASCADE,
    CHILDREN,
    JOB,
    IN_PROGRESS,
    RETRY,
    RESULT,
    META,
    DEAD,
    JOURNAL,
    SIGNALS,
    RETURNS,
    STREAM,
    LAST_CALL_KEY,
    DECISION,
    LIMIT,
    LIMIT_CALLS,
    LIMIT_UNITS,
    LIMIT_LINE,
)
_NAME: Final = re.compile(r"[^\s>#<~%&+@'\"-][^\s'\"]*")


@cache
def script_commands() -> frozenset[str]:
    """Return the commands that the Lua scripts call, as their sources name them."""
    return frozenset(name for source in read_all().values() for name in _IN_SCRIPTS.findall(source))


def commands(*, arq: bool = False) -> list[str]:
    """Return the commands that a Redis user of AgentQueue must be allowed to run, sorted."""
    return sorted({*CALLED, *script_commands(), *(ARQ if arq else ())})


def keys(queues: Sequence[str] = ()) -> list[str]:
    """Return the patterns of the keys of these queues, and of all queues if none is named.

    Raises:
        InvalidName: a queue name is invalid.
    """
    if not queues:
        return ["*"]
    shared = [
        QUEUES,
        ABORT,
        *(f"{prefix}*" for prefix in _PREFIXES),
        CASCADES,
        LIMITS,
    ]
    return [*shared, *(pattern for queue in queues for pattern in (check_queue(queue), f"{queue}:*"))]


def rule(user: str, queues: Sequence[str] = (), *, arq: bool = False) -> str:
    """Return the `ACL SETUSER` command for a user, with the placeholder PASSWORD for its password.

    Raises:
        InvalidName: a queue name is invalid.
        UsageError: the user name is invalid.
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
