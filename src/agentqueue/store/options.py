"""Options to reach a server, and how the environment sets them. Does no I/O."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from agentqueue.errors import UsageError
from agentqueue.service import environment as env
from agentqueue.store.urls import WORDS, RedisUrl, parse_url

_HOST: Final = re.compile(r"[A-Za-z0-9._:%-]+")


@dataclass(frozen=True, slots=True)
class Tls:
    """TLS options for the server and its Sentinels. Files are read for each connection, since they may change."""

    ca_file: str | None = None
    """Certificate authorities to trust, in PEM. Without it and `ca_data`, those of the system are trusted."""
    cert_file: str | None = None
    """Client certificate for a server that requires one, in PEM."""
    key_file: str | None = None
    """Private key of the client certificate, in PEM."""
    ca_data: str | None = field(default=None, repr=False)
    """PEM in the place of `ca_file`; likewise the two below."""
    cert_data: str | None = field(default=None, repr=False)
    key_data: str | None = field(default=None, repr=False)
    skip_verify: bool = False
    """Accept any certificate of the server."""
    check_hostname: bool = True
    """Require that the certificate is for the host of the connection, or for `server_name`."""
    server_name: str | None = None
    """Name on the certificate, if the connection uses another one, such as a forwarded port."""

    def __post_init__(self) -> None:
        for cert, key in ((self.cert_file, self.key_file), (self.cert_data, self.key_data)):
            if (cert is None) != (key is None):
                raise UsageError("a client certificate needs both the certificate and its private key")


@dataclass(frozen=True, slots=True)
class Sentinels:
    """Sentinels that know the address of the primary."""

    master: str
    """Name of the primary in the Sentinels' configuration."""
    nodes: tuple[tuple[str, int], ...]
    """Host and port of each Sentinel."""
    password: str | None = field(default=None, repr=False)
    """Password of the Sentinels. The password of the primary is in the URL."""

    def __post_init__(self) -> None:
        if not self.nodes or not self.master:
            raise UsageError("Sentinel needs both the Sentinels' addresses and the name of the primary")
        for number, (host, _) in enumerate(self.nodes, 1):
            if not _HOST.fullmatch(host):  # not in the message: it may contain a password, as in user:password@host
                raise UsageError(
                    f"Sentinel address {number} must be a plain host name; set the Sentinels' password by its own "
                    f"option ({env.REDIS_SENTINEL_PASSWORD})"
                )


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """Options to reach a server."""

    url: str = field(repr=False)
    """See `agentqueue.store.urls.parse_url`."""
    connect_timeout: float = 5.0
    """Timeout of a connection, in seconds. A TLS handshake with another region takes less than 1 s."""
    timeout: float = 15.0
    """Timeout of a call, in seconds. A call of 4 MiB on a slow link takes a few; a longer one is treated as lost."""
    allow_eviction: bool = False
    """Accept a server whose policy evicts keys. It may lose jobs when memory is short."""
    max_connections: int = 32
    tls: Tls | None = None
    """TLS options, which enable TLS whatever the URL's scheme. Without them only `rediss://` does, with defaults."""
    sentinel: Sentinels | None = None
    """Sentinels to ask for the primary. The URL then gives only scheme, user, password and database."""
    label: str | None = None
    """Name of the server in messages, if its address means nothing to users, such as a forwarded port."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", self.url.strip())  # values of Secrets often end with a newline
        parse_url(self.url)  # raises UsageError
        for name in ("connect_timeout", "timeout"):
            value = getattr(self, name)
            if type(value) not in (int, float) or not value > 0:  # NaN fails the comparison
                raise UsageError(f"{name} {value!r} must be a number of seconds over 0")

    @property
    def name(self) -> str:
        """Name of the server in messages and logs, without passwords."""
        if self.label is not None:
            return self.label
        if self.sentinel is None:
            return str(self.address)
        nodes = ", ".join(f"{host}:{port}" for host, port in self.sentinel.nodes)
        return f"{self.sentinel.master} (Sentinel: {nodes})"

    @property
    def address(self) -> RedisUrl:
        """The parsed URL."""
        return parse_url(self.url)

    @property
    def secrets(self) -> tuple[str, ...]:
        """Passwords, for `agentqueue.redaction.redact`."""
        sentinel = self.sentinel.password if self.sentinel else None
        return tuple(secret for secret in (self.address.password, sentinel) if secret)

    @property
    def is_secure(self) -> bool:
        """True if the connection uses TLS."""
        return self.tls is not None or self.address.scheme == "rediss"


def resolve_url(explicit: str | None, environment: Mapping[str, str] | None = None) -> str | None:
    """Return the explicit URL, else AGENTQUEUE_REDIS_URL, else REDIS_URL, else None."""
    environment = os.environ if environment is None else environment
    found = (explicit, environment.get(env.REDIS_URL), environment.get("REDIS_URL"))
    return next((url.strip() for url in found if url and url.strip()), None)


def server_options(environ: Mapping[str, str], url: str | None = None) -> ServerOptions | None:
    """Return the options that the environment sets (`environment.CONNECTION`, else REDIS_URL).

    Args:
        environ: environment variables; empty ones count as absent.
        url: URL to use instead of the environment's. Then only the variables for TLS count, and only with `rediss://`,
            since the other variables belong to the environment's server.

    Returns:
        The options; None if the environment names no server.

    Raises:
        UsageError: a variable is invalid; the message names it.
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
    """Return the variables from which `server_options` makes these options, for a child process.

    TLS options must be files.
    """
    values: dict[str, str | None] = {env.REDIS_URL: options.url}
    if tls := options.tls:
        assert tls == replace(tls, ca_data=None, cert_data=None, key_data=None), (
            "TLS options of a child process must be files"
        )
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
        raise UsageError(f"{env.REDIS_CERT_FILE} and {env.REDIS_KEY_FILE} must be set together")
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
        raise UsageError(f"{env.REDIS_SENTINEL_NODES} and {env.REDIS_SENTINEL_MASTER} must be set together")
    try:
        addresses = parse_nodes(nodes)
    except ValueError as exc:
        raise UsageError(f"{env.REDIS_SENTINEL_NODES}: {exc}") from exc
    return Sentinels(master, addresses, given[env.REDIS_SENTINEL_PASSWORD] or None)


def parse_nodes(text: str) -> tuple[tuple[str, int], ...]:
    """Return the addresses in `host:port,host:port`. IPv6 addresses are in brackets.

    Raises:
        ValueError: an address is invalid. The message does not repeat it, since it may contain a password.
    """
    words = [word.strip() for word in text.split(",") if word.strip()]
    return tuple(_node(number, word) for number, word in enumerate(words, 1))


def _node(number: int, text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not (_HOST.fullmatch(host) and port.isascii() and port.isdigit() and 0 < int(port) <= 65_535):
        raise ValueError(f"address {number} must be host:port, as in sentinel-0.redis:26379")
    return host, int(port)
