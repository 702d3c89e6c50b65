"""The console's settings, read from environment variables."""

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeVar

from agentqueue.errors import UsageError
from agentqueue.service import parsing
from agentqueue.service.environment import (
    CONSOLE_HOST,
    CONSOLE_PORT,
    CONSOLE_TOKEN,
    DEFAULT_CONSOLE_PORT,
    LOG_FORMAT,
    LOG_LEVEL,
)

T = TypeVar("T")
LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
"""Addresses that only this machine reaches. The first one is the default."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The console's address, token and log."""

    host: str = LOOPBACK[0]
    """Address to listen on. The default is loopback, since the console can cancel jobs and discard dead letters."""
    port: int = DEFAULT_CONSOLE_PORT
    """TCP port; 0 selects a free one."""
    token: str = field(default="", repr=False)
    generated: bool = False
    """True if the token is random and new. Nobody else knows it, so the console prints it once."""
    log_level: str = "info"
    log_format: str = ""
    """`json` or `console`. Empty selects `console` on a terminal and `json` elsewhere."""


def read_settings(environ: Mapping[str, str], *, host: str | None = None, port: int | None = None) -> Settings:
    """Return the settings. The arguments override the environment.

    Raises:
        UsageError: A setting is not valid, or there is no token although other machines reach the address.
    """
    host = host or environ.get(CONSOLE_HOST) or LOOPBACK[0]
    token = environ.get(CONSOLE_TOKEN, "").strip()
    if not token and host not in LOOPBACK:
        raise UsageError(
            f"a console for other machines (on {host}) needs a token: set {CONSOLE_TOKEN} to a long random text"
        )
    return Settings(
        host,
        _parse(environ, CONSOLE_PORT, parsing.port, DEFAULT_CONSOLE_PORT) if port is None else port,
        token or secrets.token_urlsafe(24),
        generated=not token,
        log_level=_parse(environ, LOG_LEVEL, parsing.log_level, "info"),
        log_format=_parse(environ, LOG_FORMAT, parsing.log_format, ""),
    )


def _parse(environ: Mapping[str, str], name: str, parse: Callable[[str], T], default: T) -> T:
    text = environ.get(name, "").strip()
    try:
        return parse(text) if text else default
    except ValueError as exc:
        raise UsageError(f"{name}={text:.40} {exc}") from None
