"""Where a server is and how it is reached: options, and how the environment and URLs say them. No I/O here."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from agentqueue import environment as env
from agentqueue.errors import UsageError

WORDS: Final = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


@dataclass(frozen=True, slots=True)
class Tls:
    """TLS towards the server, and towards its Sentinels. Files are read anew for each connection: they may change."""

    ca_file: str | None = None
    """Certificate authorities to trust, in PEM. None, and no `ca_data`: the system's."""
    cert_file: str | None = None
    """The certificate shown to a server that asks for one, in PEM."""
    key_file: str | None = None
    """Its private key, in PEM."""
    ca_data: str | None = field(default=None, repr=False)
    """As `ca_file`, but the PEM itself."""
    cert_data: str | None = field(default=None, repr=False)
    key_data: str | None = field(default=None, repr=False)
    skip_verify: bool = False
    """Take any certificate."""
    check_hostname: bool = True
    """The certificate must be for the host that is connected to, or for `server_name`."""
    server_name: str | None = None
    """The name on the certificate, where the connection goes by another one (a forwarded port)."""

    def __post_init__(self) -> None:
        for cert, key in ((self.cert_file, self.key_file), (self.cert_data, self.key_data)):
            if (cert is None) != (key is None):
                raise UsageError("a client certificate takes two: the certificate and its private key")


@dataclass(frozen=True, slots=True)
class Sentinels:
    """Who knows where the primary is."""

    master: str
    """The name under which they know it."""
    nodes: tuple[tuple[str, int], ...]
    """Host and port of each."""
    password: str | None = field(default=None, repr=False)
    """The Sentinels' own; the primary's is in the url."""

    def __post_init__(self) -> None:
        if not self.nodes or not self.master:
            raise UsageError("Sentinel takes two: the Sentinels' addresses, and the name that they know the primary by")


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """How to reach a server."""

    url: str = field(repr=False)
    connect_timeout: float = 5.0
    """Seconds; a handshake over TLS to another region takes under 1."""
    timeout: float = 15.0
    """Seconds for an answer. A step of 4 MiB on a slow link takes a few; one that hangs longer is taken for gone."""
    allow_eviction: bool = False
    """Accept a server whose policy evicts keys: it may lose jobs when memory is short."""
    max_connections: int = 32
    tls: Tls | None = None
    """Asks for TLS whatever the url's scheme. None: `rediss://` alone does, with the system's authorities."""
    sentinel: Sentinels | None = None
    """Then the url gives scheme, user, password and database only."""
    label: str | None = None
    """What messages call the server, where its address would tell nobody anything (a forwarded port)."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", self.url.strip())  # Secrets' values often end with a newline
        for name in ("connect_timeout", "timeout"):
            _check_seconds(name, getattr(self, name))

    @property
    def name(self) -> str:
        """The server as messages and logs name it: no password."""
        if self.label is not None:
            return self.label
        if self.sentinel is None:
            return describe_url(self.url)
        nodes = ", ".join(f"{host}:{port}" for host, port in self.sentinel.nodes)
        return f"{self.sentinel.master} (Sentinel: {nodes})"

    @property
    def is_secure(self) -> bool:
        """Whether TLS is asked for."""
        return self.tls is not None or self.url.startswith("rediss:")


def _check_seconds(name: str, value: Any) -> None:
    if type(value) not in (int, float) or not value > 0:  # NaN fails the comparison
        raise UsageError(f"{name} {value!r} must be a number of seconds over 0")


def describe_url(url: str) -> str:
    """The URL without its password, for messages and logs."""
    parts = urlsplit(url)
    if not parts.hostname:
        return url
    host = f"{parts.hostname}:{parts.port}" if parts.port else parts.hostname
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


def resolve_url(explicit: str | None, environment: Mapping[str, str] | None = None) -> str | None:
    """The server's URL: given, else AGENTQUEUE_REDIS_URL, else REDIS_URL, else None."""
    environment = os.environ if environment is None else environment
    found = (explicit, environment.get(env.REDIS_URL), environment.get("REDIS_URL"))
    return next((url.strip() for url in found if url and url.strip()), None)


def server_options(environ: Mapping[str, str], url: str | None = None) -> ServerOptions | None:
    """The server that the environment names (`agentqueue.environment.CONNECTION`, else REDIS_URL); None: it names none.

    Args:
        environ: the variables; empty ones count as absent.
        url: goes before the environment's. Then only the variables for TLS count, and only if it is `rediss://`:
            what they and the Sentinels' say is of the environment's server.

    Raises:
        UsageError: a variable that can't be; the message names it.
    """
    given = {name: environ.get(name, "").strip() for name in env.CONNECTION}
    if url:
        return ServerOptions(url, tls=_tls(given) if url.startswith("rediss:") else None)
    sentinel = _sentinels(given)
    found = resolve_url(None, environ) or ("redis://" if sentinel else None)
    return None if found is None else ServerOptions(found, tls=_tls(given), sentinel=sentinel)


def connection_environment(options: ServerOptions) -> dict[str, str]:
    """The variables out of which `server_options` makes these options; for a child process. TLS by files only."""
    values: dict[str, str | None] = {env.REDIS_URL: options.url}
    if tls := options.tls:
        assert tls == replace(tls, ca_data=None, cert_data=None, key_data=None), "a process can be told of files only"
        values |= {env.REDIS_TLS: "true", env.REDIS_CA_FILE: tls.ca_file, env.REDIS_CERT_FILE: tls.cert_file}
        values |= {env.REDIS_KEY_FILE: tls.key_file}
        values |= {env.REDIS_INSECURE_SKIP_VERIFY: "true"} if tls.skip_verify else {}
    if sentinel := options.sentinel:
        nodes = ",".join(f"{host}:{port}" for host, port in sentinel.nodes)
        values |= {env.REDIS_SENTINEL_NODES: nodes, env.REDIS_SENTINEL_MASTER: sentinel.master}
        values |= {env.REDIS_SENTINEL_PASSWORD: sentinel.password}
    return {name: value for name, value in values.items() if value}


def _tls(given: Mapping[str, str]) -> Tls | None:
    skip = _flag(given, env.REDIS_INSECURE_SKIP_VERIFY)
    ca, cert, key = (given[name] or None for name in (env.REDIS_CA_FILE, env.REDIS_CERT_FILE, env.REDIS_KEY_FILE))
    if not (_flag(given, env.REDIS_TLS) or skip or ca or cert or key):
        return None
    if (cert is None) != (key is None):
        raise UsageError(f"{env.REDIS_CERT_FILE} and {env.REDIS_KEY_FILE} go together: set both, or neither")
    return Tls(ca, cert, key, skip_verify=skip)


def _flag(given: Mapping[str, str], name: str) -> bool:
    word = given[name].lower() or "false"
    if word not in WORDS:
        raise UsageError(f"{name}={given[name]!r:.80} must be true or false")
    return WORDS[word]


def _sentinels(given: Mapping[str, str]) -> Sentinels | None:
    nodes, master = given[env.REDIS_SENTINEL_NODES], given[env.REDIS_SENTINEL_MASTER]
    if not nodes and not master:
        return None
    if not nodes or not master:
        raise UsageError(
            f"{env.REDIS_SENTINEL_NODES} and {env.REDIS_SENTINEL_MASTER} go together: set both, or neither"
        )
    try:
        addresses = parse_nodes(nodes)
    except ValueError as exc:
        raise UsageError(f"{env.REDIS_SENTINEL_NODES}: {exc}") from exc
    return Sentinels(master, addresses, given[env.REDIS_SENTINEL_PASSWORD] or None)


def parse_nodes(text: str) -> tuple[tuple[str, int], ...]:
    """`host:port,host:port` as addresses; an IPv6 address stands in brackets.

    Raises:
        ValueError: with what it should be.
    """
    return tuple(_node(word.strip()) for word in text.split(",") if word.strip())


def _node(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not (port.isascii() and port.isdigit() and 0 < int(port) <= 65_535):
        raise ValueError(f"{text!r:.80} must be host:port, as in sentinel-0.redis:26379")
    return host.removeprefix("[").removesuffix("]"), int(port)


def split_tls(url: str) -> tuple[str, dict[str, Any]]:
    """The URL without redis-py's `ssl_…` parameters, and the fields of Tls that they give.

    Raises:
        UsageError: a parameter of TLS that is none of these.
    """
    parts = urlsplit(url)
    rest: list[tuple[str, str]] = []
    fields: dict[str, Any] = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name in _FILES:
            fields[_FILES[name]] = value
        elif name == "ssl_cert_reqs":
            fields["skip_verify"] = value.lower() in ("none", "cert_none")
        elif name == "ssl_check_hostname":
            fields["check_hostname"] = WORDS.get(value.lower(), True)
        elif name.startswith("ssl_"):
            raise UsageError(f"the Redis URL's parameter {name} is not known; known are {', '.join(_KNOWN)}")
        else:
            rest.append((name, value))
    return (urlunsplit(parts._replace(query=urlencode(rest))) if fields else url), fields


_FILES: Final = {"ssl_ca_certs": "ca_file", "ssl_certfile": "cert_file", "ssl_keyfile": "key_file"}
_KNOWN: Final = (*_FILES, "ssl_cert_reqs", "ssl_check_hostname")
