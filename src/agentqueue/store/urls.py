"""Parse Redis URLs, and show them without secrets. Does no I/O."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl, unquote

from agentqueue.errors import UsageError
from agentqueue.redaction import ACCOUNT, REDACTED

SCHEMES: Final = ("redis", "rediss", "unix")
FORM: Final = f"write redis://{ACCOUNT}host:port/db, rediss:// for TLS, or unix:///path for a socket"
WORDS: Final = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_TLS_FILES: Final = {"ssl_ca_certs": "ca_file", "ssl_certfile": "cert_file", "ssl_keyfile": "key_file"}
PARAMETERS: Final = ("db", "username", "password", "client_name", *_TLS_FILES, "ssl_cert_reqs", "ssl_check_hostname")
"""Query parameters that a URL may have."""
_LEAVE_OUT: Final = "leave it out"
_TIMEOUT: Final = "leave it out; a Client takes timeout= and connect_timeout="
_ADVICE: Final = {
    "ssl": "write rediss:// instead",
    "tls": "write rediss:// instead",
    "ssl_ca_cert": "write ssl_ca_certs",
    "decode_responses": "leave it out; AgentQueue decodes what it reads",
    "encoding": "leave it out; AgentQueue decodes what it reads",
    "protocol": "leave it out; AgentQueue speaks RESP2",
    "socket_timeout": _TIMEOUT,
    "socket_connect_timeout": _TIMEOUT,
    "timeout": _TIMEOUT,
    "max_connections": "leave it out; AgentQueue sizes its own pool",
    "host": "write the host before the path: redis://host:port/db",
    "port": "write the port after the host: redis://host:port/db",
}
"""Advice for parameters that other programs accept, by name."""
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,39}")
_HOST: Final = re.compile(r"[^\s/@:\[\]#?\\'\"<>%]+|\[[0-9A-Fa-f:.%]+\]")
_UNPRINTABLE: Final = re.compile(r"[\x00-\x20\x7f]")


@dataclass(frozen=True, slots=True)
class RedisUrl:
    """A parsed Redis URL. `str()` returns it without user name, password and parameters."""

    scheme: str
    host: str | None = None
    """None for localhost and for a socket."""
    port: int | None = None
    path: str | None = None
    """Path of a Unix socket."""
    db: int | None = None
    client_name: str | None = None
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    tls: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `agentqueue.Tls` that the `ssl_…` parameters set."""

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix://{self.path}" + ("" if self.db is None else f"?db={self.db}")
        host = self.host or "localhost"
        port = "" if self.port is None else f":{self.port}"
        return f"{self.scheme}://{f'[{host}]' if ':' in host else host}{port}" + (
            "" if self.db is None else f"/{self.db}"
        )

    @property
    def connection(self) -> dict[str, Any]:
        """Keyword arguments of a redis-py connection; missing ones keep the defaults of redis-py."""
        names = ("host", "port", "path", "db", "client_name", "username", "password")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


def parse_url(url: str) -> RedisUrl:
    """Parse a Redis URL.

    Only the parameters in `PARAMETERS` are accepted. redis-py passes any other one to the connection, where it fails
    long after the start, or changes how replies are decoded.

    Raises:
        UsageError: the URL is not one that AgentQueue can use. The message repeats nothing of it but a parameter's
            name, since a malformed URL may contain a password anywhere.
    """
    url = url.strip()
    scheme, separator, rest = url.partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in SCHEMES:
        raise _refused("starts with none of redis://, rediss:// and unix://")
    if _UNPRINTABLE.search(url):
        raise _refused("has a space or a control character; in a password, write it percent-encoded (%20)")
    if "#" in rest:
        raise _refused("has a #; in a password, write %23")
    rest, _, query = rest.partition("?")
    netloc, slash, path = rest.partition("/")
    if "@" in query or ("@" in path and "@" not in netloc):
        raise _refused("has a / or a ? before the @; in a password, write %2F and %3F")
    account, _, address = netloc.rpartition("@")
    username, _, password = account.partition(":")
    given = _parameters(query)
    target = _socket(address, slash + path) if scheme == "unix" else _address(address, path)
    return RedisUrl(
        scheme,
        **target | ({"db": _database(given["db"])} if "db" in given else {}),
        client_name=given.get("client_name") or None,
        username=unquote(username) or given.get("username") or None,
        password=unquote(password) or given.get("password") or None,
        tls=_tls_fields(given),
    )


def describe_url(url: str) -> str:
    """Return the URL without its secrets, for messages and logs; only the scheme if the URL is malformed."""
    try:
        return str(parse_url(url))
    except UsageError:
        scheme = url.strip().partition("://")[0].lower()
        return f"{scheme}://{REDACTED}" if scheme in SCHEMES else "the Redis URL"


def _refused(problem: str, advice: str = FORM) -> UsageError:
    return UsageError(f"the Redis URL {problem}; {advice}")


def _socket(address: str, path: str) -> dict[str, Any]:
    if address or not path.strip("/"):
        raise _refused(
            "of a Unix socket names no absolute path", "write unix:///path/to/redis.sock, with three slashes"
        )
    return {"path": unquote(path)}


def _address(address: str, path: str) -> dict[str, Any]:
    host, colon, port = address, "", ""
    if not address.endswith("]"):
        host, colon, port = address.rpartition(":") if ":" in address else (address, "", "")
    if host and not _HOST.fullmatch(host):
        raise _refused("has no host name that can be used")
    if colon and not (port.isascii() and port.isdigit() and 0 < int(port) <= 65_535):
        raise _refused("has a port that is not a number from 1 to 65535", f"after a password comes @host; {FORM}")
    database = path.strip("/")
    return {
        "host": host.removeprefix("[").removesuffix("]") or None,
        "port": int(port) if port else None,
        "db": _database(database) if database else None,
    }


def _database(text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) <= 9:
        return int(text)
    raise _refused("has a database that is not a whole number", "write redis://host:port/0")


def _parameters(query: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if not value or not _NAME.fullmatch(name):
            raise _refused("has a parameter that is not name=value", f"known are {', '.join(PARAMETERS)}")
        if name not in PARAMETERS:
            advice = _ADVICE.get(name.lower(), _LEAVE_OUT)
            raise UsageError(
                f"the Redis URL's parameter {name} is not supported: {advice} (supported are {', '.join(PARAMETERS)})"
            )
        if name in found:
            raise UsageError(f"the Redis URL's parameter {name} is given twice; give it once")
        found[name] = value
    return found


def _tls_fields(given: Mapping[str, str]) -> dict[str, Any]:
    fields: dict[str, Any] = {_TLS_FILES[name]: value for name, value in given.items() if name in _TLS_FILES}
    if "ssl_cert_reqs" in given:
        word = given["ssl_cert_reqs"].lower().removeprefix("cert_")
        if word not in ("none", "required"):
            raise UsageError("the Redis URL's parameter ssl_cert_reqs must be none or required")
        fields["skip_verify"] = word == "none"
    if "ssl_check_hostname" in given:
        word = given["ssl_check_hostname"].lower()
        if word not in WORDS:
            raise UsageError("the Redis URL's parameter ssl_check_hostname must be true or false")
        fields["check_hostname"] = WORDS[word]
    return fields
