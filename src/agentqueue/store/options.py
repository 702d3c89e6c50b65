"""Where a server is and how it is reached: options, and how the environment gives them. No I/O here."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from agentqueue.errors import UsageError
from agentqueue.service import environment as env
from agentqueue.store.urls import WORDS, RedisUrl, parse_url

_HOST: Final = re.compile(r"[A-Za-z0-9._:%-]+")


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
        for number, (host, _) in enumerate(self.nodes, 1):
            if not _HOST.fullmatch(host):  # not repeated: it may hold a password, as in user:password@host
                raise UsageError(
                    f"Sentinel address {number} has no plain host name; the Sentinels' password has an option of its "
                    f"own ({env.REDIS_SENTINEL_PASSWORD})"
                )


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """How to reach a server."""

    url: str = field(repr=False)
    """See `agentqueue.store.urls.parse_url`."""
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
        parse_url(self.url)  # what can't be used is refused here, wherever the URL came from
        for name in ("connect_timeout", "timeout"):
            _check_seconds(name, getattr(self, name))

    @property
    def name(self) -> str:
        """The server as messages and logs name it: no password."""
        if self.label is not None:
            return self.label
        if self.sentinel is None:
            return str(self.address)
        nodes = ", ".join(f"{host}:{port}" for host, port in self.sentinel.nodes)
        return f"{self.sentinel.master} (Sentinel: {nodes})"

    @property
    def address(self) -> RedisUrl:
        """The URL, taken apart."""
        return parse_url(self.url)

    @property
    def secrets(self) -> tuple[str, ...]:
        """The passwords, for `agentqueue.redaction.redact`."""
        sentinel = self.sentinel.password if self.sentinel else None
        return tuple(secret for secret in (self.address.password, sentinel) if secret)

    @property
    def is_secure(self) -> bool:
        """Whether TLS is asked for."""
        return self.tls is not None or self.address.scheme == "rediss"


def _check_seconds(name: str, value: Any) -> None:
    if type(value) not in (int, float) or not value > 0:  # NaN fails the comparison
        raise UsageError(f"{name} {value!r} must be a number of seconds over 0")


def resolve_url(explicit: str | None, environment: Mapping[str, str] | None = None) -> str | None:
    """Return the server's URL: given, else AGENTQUEUE_REDIS_URL, else REDIS_URL, else None."""
    environment = os.environ if environment is None else environment
    found = (explicit, environment.get(env.REDIS_URL), environment.get("REDIS_URL"))
    return next((url.strip() for url in found if url and url.strip()), None)


def server_options(environ: Mapping[str, str], url: str | None = None) -> ServerOptions | None:
    """The server that the environment names (`environment.CONNECTION`, else REDIS_URL); None: it names none.

    Args:
        environ: the variables; empty ones count as absent.
        url: goes before the environment's. Then only the variables for TLS count, and only if it is `rediss://`:
            what they and the Sentinels' say is of the environment's server.

    Raises:
        UsageError: a variable that can't be; the message names it.
    """
    given = {name: environ.get(name, "").strip() for name in env.CONNECTION}
    if url:
        return ServerOptions(url, tls=_tls(given) if parse_url(url).scheme == "rediss" else None)
    sentinel = _sentinels(given)
    found = resolve_url(None, environ) or ("redis://" if sentinel else None)
    if found is None:
        return None
    try:
        parse_url(found)
    except UsageError as exc:
        raise UsageError(f"{env.REDIS_URL if given[env.REDIS_URL] else 'REDIS_URL'}: {exc}") from None
    return ServerOptions(found, tls=_tls(given), sentinel=sentinel)


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
    """Return `host:port,host:port` as addresses; an IPv6 address stands in brackets.

    Raises:
        ValueError: with what it should be. The text is not repeated: people write passwords into addresses.
    """
    words = [word.strip() for word in text.split(",") if word.strip()]
    return tuple(_node(number, word) for number, word in enumerate(words, 1))


def _node(number: int, text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not (_HOST.fullmatch(host) and port.isascii() and port.isdigit() and 0 < int(port) <= 65_535):
        raise ValueError(f"address {number} must be host:port, as in sentinel-0.redis:26379")
    return host, int(port)
