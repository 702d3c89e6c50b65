"""redis-py's errors as ours: each names the thing, the cause and the next step."""

import ssl

import pytest
from redis import exceptions as redis_errors

from agentqueue.errors import AgentQueueError, QueueFull, QueueUnavailable, UnsupportedServer
from agentqueue.store import ServerOptions, Tls
from agentqueue.store.connection import CHECK_NAME, NoPrimary
from agentqueue.store.errors import is_demoted, translate
from agentqueue.store.tls import advise_on_tls, find_tls_error

PLAIN = ServerOptions("redis://:s3cret@host:1")
SECURE = ServerOptions("redis://:s3cret@host:1", tls=Tls())


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (redis_errors.OutOfMemoryError("command not allowed"), QueueFull, "is full .maxmemory."),
        (redis_errors.ResponseError("OOM command not allowed"), QueueFull, "Give it more memory"),
        (redis_errors.AuthenticationError("invalid"), QueueUnavailable, "refuses the credentials"),
        (redis_errors.ResponseError("NOAUTH Authentication required"), QueueUnavailable, "password"),
        (
            redis_errors.NoPermissionError("User bob has no permissions to run the 'info' command"),
            QueueUnavailable,
            "^Redis at redis://host:1: user bob may not run INFO; allow it: `agentqueue acl`",
        ),
        (
            redis_errors.NoPermissionError("this user has no permissions to run the 'script|load' command"),
            QueueUnavailable,
            "user default may not run SCRIPT LOAD; ",
        ),
        (
            redis_errors.ResponseError("ACL failure in script: User bob has no permissions to run the 'zadd' command"),
            QueueUnavailable,
            "user bob may not run ZADD; ",
        ),
        (
            redis_errors.ResponseError("ACL failure in script: No permissions to access a key"),
            QueueUnavailable,
            "user default may not use a key of this queue .*; ",
        ),
        (
            redis_errors.NoPermissionError("No permissions to access a channel"),
            QueueUnavailable,
            "user default may not use a channel",
        ),
        (
            redis_errors.ResponseError(
                "The user executing the script can't run this command or subcommand script: 4044"
            ),
            QueueUnavailable,
            "user default may not run a command that AgentQueue's scripts call; ",
        ),
        (redis_errors.NoPermissionError("no"), QueueUnavailable, "user default may not use a resource"),
        (redis_errors.BusyLoadingError("loading"), QueueUnavailable, "is loading its data"),
        (redis_errors.ReadOnlyError("replica"), QueueUnavailable, "has become a read-only replica"),
        (redis_errors.ResponseError("UNBLOCKED force unblock"), QueueUnavailable, "has become a read-only replica"),
        (redis_errors.InvalidResponse("HTTP/1.1 400"), UnsupportedServer, "is not Redis"),
        (redis_errors.ResponseError("NOREPLICAS"), QueueUnavailable, "refused a command: NOREPLICAS"),
        (redis_errors.ConnectionError("no route"), QueueUnavailable, "check that it runs, the URL and the network"),
        (redis_errors.TimeoutError("late"), QueueUnavailable, "check that it runs, the URL and the network"),
        (NoPrimary("s0:1 knows none", CHECK_NAME), QueueUnavailable, "s0:1 knows none; check the primary's name"),
    ],
)
def test_what_the_server_or_the_network_did(
    error: redis_errors.RedisError, kind: type[AgentQueueError], says: str
) -> None:
    found = translate(error, PLAIN)
    assert isinstance(found, kind)
    with pytest.raises(kind, match=says):
        raise found
    assert "s3cret" not in str(found)


@pytest.mark.parametrize(
    ("error", "options", "says"),
    [
        (caused(redis_errors.ConnectionError("gone"), ConnectionResetError()), PLAIN, "rediss:// if it requires TLS"),
        (redis_errors.ConnectionError("Connection closed by server."), PLAIN, "rediss:// if it requires TLS"),
        (redis_errors.ConnectionError("Connection closed by server."), SECURE, "AGENTQUEUE_REDIS_CERT_FILE"),
        (redis_errors.TimeoutError("late"), SECURE, "redis:// if it does not speak TLS"),
        (caused(redis_errors.ConnectionError("x"), ssl.SSLError("broken")), SECURE, "TLS to Redis .* fails: .*broken"),
    ],
)
def test_what_may_be_wrong_with_the_scheme(error: redis_errors.RedisError, options: ServerOptions, says: str) -> None:
    with pytest.raises(QueueUnavailable, match=says):
        raise translate(error, options)


def test_only_a_demoted_server_is_called_so() -> None:
    assert is_demoted(redis_errors.ReadOnlyError("x"))
    assert not is_demoted(redis_errors.ResponseError("WRONGTYPE"))


def tls_error(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, f"[SSL: {reason}]")
    error.reason = reason
    return error


@pytest.mark.parametrize(
    ("reason", "says"),
    [
        ("TLSV13_ALERT_CERTIFICATE_REQUIRED", "requires a client certificate"),
        ("SSLV3_ALERT_HANDSHAKE_FAILURE", "requires a client certificate"),
        ("TLSV1_ALERT_UNKNOWN_CA", "rejects our certificate"),
        ("WRONG_VERSION_NUMBER", "does not speak TLS"),
        ("RECORD_LAYER_FAILURE", "does not speak TLS"),
        ("UNEXPECTED_EOF_WHILE_READING", "UNEXPECTED_EOF"),
    ],
)
def test_what_tls_reasons_mean(reason: str, says: str) -> None:
    assert says in advise_on_tls(tls_error(reason))


def test_a_tls_error_is_found_behind_others() -> None:
    inner = tls_error("X")
    outer = caused(redis_errors.ConnectionError("a"), caused(OSError("b"), inner))
    assert find_tls_error(outer) is inner
    assert find_tls_error(redis_errors.ConnectionError("a")) is None
