"""Translate errors of redis-py into errors of AgentQueue, which say what happened and what to do about it."""

import re
from typing import Final

from redis import exceptions as redis_errors

from agentqueue.errors import AgentQueueError, QueueFull, QueueUnavailable, UnsupportedServer
from agentqueue.redaction import redact, redact_exception
from agentqueue.service import environment as env
from agentqueue.store.connection import NoPrimary
from agentqueue.store.options import ServerOptions
from agentqueue.store.tls import advise_on_tls, find_tls_error

_DENIED_IN_SCRIPT: Final = ("ACL failure in script", "The user executing the script can't")
"""Denials in a script: of Redis 7.2 and Valkey, and of Redis 7.0, which names neither the user nor the command."""
_USER: Final = re.compile(r"\bUser (\S+) has no permissions")
_COMMAND: Final = re.compile(r"has no permissions to run the '([^']+)' command")
_RESOURCE: Final = re.compile(r"\b(key|channel)s?\b")
_RESOURCES: Final = {"key": "a key of this queue", "channel": "a channel"}
ACL_ADVICE: Final = "allow it: `agentqueue acl` prints the rule with all commands and keys that are needed"


def is_demoted(exc: redis_errors.RedisError) -> bool:
    """Return whether the server has become a replica: it refuses writes, and has ended blocking commands."""
    return isinstance(exc, redis_errors.ReadOnlyError) or str(exc).startswith("UNBLOCKED")


def is_forbidden(exc: BaseException | None) -> bool:
    """Return whether the server's ACL forbids the command or key to the user."""
    return isinstance(exc, redis_errors.NoPermissionError) or (
        isinstance(exc, redis_errors.RedisError) and any(words in str(exc) for words in _DENIED_IN_SCRIPT)
    )


def _explain_denial(text: str, options: ServerOptions) -> str:
    """Return a denial as `user NAME may not run INFO`. Redis and Valkey name the user only for denied commands."""
    user = _USER.search(text)
    name = user[1] if user else options.address.username or "default"
    command = _COMMAND.search(text)
    if command:
        return f"user {name} may not run {command[1].upper().replace('|', ' ')}"
    if "run this command" in text:
        return f"user {name} may not run a command that AgentQueue's scripts call"
    resource = _RESOURCE.search(text)
    return f"user {name} may not use {_RESOURCES.get(resource[1] if resource else '', 'a resource')} ({text})"


def translate(exc: redis_errors.RedisError, options: ServerOptions) -> AgentQueueError:
    """Return AgentQueue's error for an error of redis-py. Passwords are removed from both, and from their causes."""
    translated = _refused(exc, options) or _unreachable(exc, options)
    redact_exception(exc, options.secrets)
    return type(translated)(redact(str(translated), options.secrets))


def _refused(exc: redis_errors.RedisError, options: ServerOptions) -> AgentQueueError | None:
    """Return the error for an error reply of the server; None if the server did not reply."""
    server = options.name
    text = str(exc)
    if isinstance(exc, redis_errors.OutOfMemoryError) or text.startswith("OOM"):
        return QueueFull(
            f"Redis at {server} is full (maxmemory) and accepts no new jobs; running jobs finish. Give it more memory"
        )
    if is_forbidden(exc):
        return QueueUnavailable(f"Redis at {server}: {_explain_denial(text, options)}; {ACL_ADVICE}")
    # A large command without a password gets a protocol error, before the server has read all of it.
    if isinstance(exc, redis_errors.AuthenticationError) or "NOAUTH" in text or "unauthenticated" in text:
        return QueueUnavailable(f"Redis at {server} refuses the credentials ({text}); check the password in the URL")
    if isinstance(exc, redis_errors.BusyLoadingError):
        return QueueUnavailable(f"Redis at {server} is loading its data; try again in a moment")
    if is_demoted(exc):
        return QueueUnavailable(
            f"Redis at {server} has become a read-only replica; the next call opens a new connection"
        )
    if isinstance(exc, redis_errors.InvalidResponse):
        return UnsupportedServer(f"the server at {server} is not Redis ({text[:80]}); check host and port")
    if isinstance(exc, redis_errors.ConnectionError | redis_errors.TimeoutError):
        return None
    return QueueUnavailable(f"Redis at {server} refused a command: {text}")


def _unreachable(exc: redis_errors.RedisError, options: ServerOptions) -> QueueUnavailable:
    if isinstance(exc, NoPrimary):
        return QueueUnavailable(f"no Sentinel names the primary of {options.name}: {exc}; {exc.advice}")
    tls = find_tls_error(exc)
    if tls is not None:
        return QueueUnavailable(f"TLS to Redis at {options.name} fails: {advise_on_tls(tls)}")
    hint = ""
    if isinstance(exc.__cause__ or exc.__context__, ConnectionResetError) or "closed by server" in str(exc):
        hint = " (rediss:// if it requires TLS)"
        if options.is_secure:  # TLS 1.3 rejects a certificate after the handshake, and its alert may be lost
            hint = f", the client certificate that it may require ({env.REDIS_CERT_FILE}),"
    elif isinstance(exc, redis_errors.TimeoutError) and options.is_secure:
        hint = " (redis:// if it does not speak TLS)"
    return QueueUnavailable(
        f"Redis at {options.name} does not answer ({exc}); check that it runs, the URL{hint} and the network"
    )
