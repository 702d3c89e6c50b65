"""Redis URLs: what is taken, what is refused by its name, and that no secret of one is ever shown."""

import traceback
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio.connection import parse_url as redis_py_reads

from agentqueue.errors import QueueUnavailable, UsageError
from agentqueue.redaction import REDACTED, redact, redact_exception
from agentqueue.spec.explain import show
from agentqueue.spec.problems import dotted
from agentqueue.store import ServerOptions
from agentqueue.store.urls import PARAMETERS, RedisUrl, describe_url, parse_url
from tests.support.secret_urls import FORMS, GOOD, SECRET


@pytest.mark.parametrize(
    ("url", "expected", "shown"),
    [
        ("redis://", RedisUrl("redis"), "redis://localhost"),
        ("redis://h", RedisUrl("redis", "h"), "redis://h"),
        (" REDIS://h:1/2\n", RedisUrl("redis", "h", 1, db=2), "redis://h:1/2"),
        ("redis://h/", RedisUrl("redis", "h"), "redis://h"),
        ("redis://h/3?db=4", RedisUrl("redis", "h", db=4), "redis://h/4"),
        ("redis://u:p%40%2Fss@h", RedisUrl("redis", "h", username="u", password="p@/ss"), "redis://h"),
        ("redis://a@b:c@h", RedisUrl("redis", "h", username="a@b", password="c"), "redis://h"),
        ("redis://u@[::1]:7", RedisUrl("redis", "::1", 7, username="u"), "redis://[::1]:7"),
        ("redis://[::1]", RedisUrl("redis", "::1"), "redis://[::1]"),
        (
            "redis://h?username=u&password=p%20w&client_name=me",
            RedisUrl("redis", "h", client_name="me", username="u", password="p w"),
            "redis://h",
        ),
        ("unix:///run/r.sock", RedisUrl("unix", path="/run/r.sock"), "unix:///run/r.sock"),
        (
            "unix://:p@/run/r.sock?db=1",
            RedisUrl("unix", path="/run/r.sock", db=1, password="p"),
            "unix:///run/r.sock?db=1",
        ),
        ("unix:///run/a@b.sock?password=p", None, None),
        ("rediss://h?ssl_ca_certs=a.pem&db=3", RedisUrl("rediss", "h", db=3, tls={"ca_file": "a.pem"}), "rediss://h/3"),
        (
            "rediss://h?ssl_certfile=a&ssl_keyfile=b",
            RedisUrl("rediss", "h", tls={"cert_file": "a", "key_file": "b"}),
            "rediss://h",
        ),
        ("rediss://h?ssl_cert_reqs=none", RedisUrl("rediss", "h", tls={"skip_verify": True}), "rediss://h"),
        ("rediss://h?ssl_cert_reqs=CERT_REQUIRED", RedisUrl("rediss", "h", tls={"skip_verify": False}), "rediss://h"),
        ("rediss://h?ssl_check_hostname=false", RedisUrl("rediss", "h", tls={"check_hostname": False}), "rediss://h"),
    ],
)
def test_a_url_taken_apart(url: str, expected: RedisUrl | None, shown: str | None) -> None:
    if expected is None:
        with pytest.raises(UsageError, match="before the @"):
            parse_url(url)
        return
    assert parse_url(url) == expected
    assert str(expected) == shown == describe_url(url)


WORDS = st.text("abcXYZ019@:/?#% ä-_", max_size=12)


@given(
    st.sampled_from(["redis", "rediss", "unix"]),
    WORDS,
    WORDS,
    st.sampled_from(["", "h", "h:1", "10.0.0.1:65535", "[::1]:3"]),
    st.sampled_from(["", "/", "/7"]),
)
def test_redis_py_reads_the_same(scheme: str, username: str, password: str, address: str, database: str) -> None:
    account = f"{quote(username, safe='')}:{quote(password, safe='')}@" if username or password else ""
    place = "/run/r.sock" if scheme == "unix" else f"{address}{database}"
    expected: dict[str, Any] = {**redis_py_reads(f"{scheme}://{account}{place}")}
    expected.pop("connection_class", None)
    assert parse_url(f"{scheme}://{account}{place}").connection == expected


@given(st.text(max_size=40))
def test_whatever_is_given_is_read_or_refused(text: str) -> None:
    try:
        parse_url(f"redis://{text}")
    except UsageError as exc:
        assert str(exc).startswith("the Redis URL")  # noqa: PT017


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("h:6379", "starts with none of"),
        (
            "http://h",
            r"starts with none of redis://, rediss:// and unix://; write redis://\[user:password@\]host:port/db, rediss://",
        ),
        ("redis:h", "starts with none of"),
        ("redis://h h", "a space or a control character.*%20"),
        ("redis://h\th", "a space or a control character"),
        ("redis://:p#w@h", "write %23"),
        ("redis://:p/w@h", "write %2F"),
        ("redis://:p?w@h", "write %2F and %3F"),
        ("redis://h:x", "a port that is not a number"),
        ("redis://h:0", "a port that is not a number"),
        ("redis://h:", "a port that is not a number"),
        ("redis://[::1]:x", "a port that is not a number"),
        ("redis://h<>", "no host name"),
        ("redis://h/abc", "a database that is not a whole number"),
        ("redis://h?db=x", "a database that is not a whole number"),
        ("redis://h?db", "a parameter that is not name=value"),
        ("redis://h?db=", "a parameter that is not name=value"),
        ("redis://h?db=1&db=2", "parameter db is given twice"),
        ("unix://run/r.sock", "with three slashes"),
        ("unix://", "with three slashes"),
        ("rediss://h?ssl_cert_reqs=maybe", "ssl_cert_reqs must be none or required"),
        ("rediss://h?ssl_check_hostname=maybe", "ssl_check_hostname must be true or false"),
        ("redis://h?ssl=true", "parameter ssl is not supported: write rediss:// instead"),
        ("redis://h?decode_responses=true", "parameter decode_responses is not supported: leave it out"),
        ("redis://h?foo=bar", "parameter foo is not supported: leave it out .supported are db, username"),
        ("redis://h?socket_timeout=3", "parameter socket_timeout is not supported: .*timeout="),
        ("redis://h?max_connections=3", "parameter max_connections is not supported"),
        ("rediss://h?ssl_ca_cert=a.pem", "parameter ssl_ca_cert is not supported: write ssl_ca_certs"),
    ],
)
def test_what_can_not_be_used_is_refused_with_what_to_write(url: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        ServerOptions(url)


def test_every_supported_parameter_is_taken() -> None:
    values = {"db": "1", "ssl_cert_reqs": "none", "ssl_check_hostname": "true"}
    url = "rediss://h?" + "&".join(f"{name}={values.get(name, 'x')}" for name in PARAMETERS)
    assert parse_url(url).connection["db"] == 1


@pytest.mark.parametrize("url", FORMS)
def test_no_form_shows_its_secret(url: str) -> None:
    assert SECRET not in describe_url(url)
    assert SECRET not in redact(f"Error 111 connecting to {url}.")
    assert SECRET not in str(QueueUnavailable(f"cannot reach {url!r}"))
    assert SECRET not in show(url)
    assert SECRET not in show([url])
    assert SECRET not in dotted(("spec", url))
    assert SECRET not in redact(f"{Path(url)}: no such file")
    if url in GOOD:
        options = ServerOptions(url)
        assert SECRET not in f"{options} {options!r} {options.name} {options.address!r}"
        assert options.secrets == (SECRET,)
    else:
        with pytest.raises(UsageError) as caught:
            ServerOptions(url)
        assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_known_secrets_go_in_every_form() -> None:
    secret = "p@ss w/ö\n"
    text = f"{secret}|{quote(secret, safe='')}|{quote(secret)}|{secret!r}"
    assert redact(text, [secret, None, ""]) == f"{REDACTED}|{REDACTED}|{REDACTED}|'{REDACTED}'"


def test_an_exception_and_all_that_it_came_from_are_redacted() -> None:
    inner = OSError(2, SECRET)
    outer = ValueError(f"got {SECRET}", 5)
    outer.__cause__, inner.__context__ = inner, outer  # a circle
    redact_exception(outer, [SECRET])
    assert (outer.args, inner.args) == ((f"got {REDACTED}", 5), (2, REDACTED))


@pytest.mark.parametrize(
    "text",
    [
        "no URL, key=value; mail ops@example.com",
        "Redis at redis://h:1/0 does not answer; mail ops@example.com, key=value, password is unset",
        "Redis at redis://h:1: Error running script (call to f_1): @user_script:134: refused",
        "Redis at unix:///run/r.sock: @user_script:1",
        "Redis at redis://[::1]:6379/0 (a@b)",
        "see https://example.com/a: @me",
        "starts with none of redis:// and unix://; write redis://[user:password@]host:port/db, rediss:// for TLS",
    ],
)
def test_plain_text_stays(text: str) -> None:
    assert redact(text) == text
