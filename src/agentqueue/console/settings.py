"""The console's settings, from the environment."""

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

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

LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True)
class Settings:
    """Where the console listens, and what it asks for."""

    host: str = LOOPBACK[0]
    """Loopback, unless told otherwise: the console can cancel jobs and discard dead letters."""
    port: int = DEFAULT_CONSOLE_PORT
    """0: any free one."""
    token: str = field(default="", repr=False)
    generated: bool = False
    """The token was drawn at random just now: nobody else knows it, so it is printed once."""
    log_level: str = "info"
    log_format: str = ""
    """json or console; empty: console on a terminal, JSON elsewhere."""


def read_settings(environ: Mapping[str, str], *, host: str | None = None, port: int | None = None) -> Settings:
    """The settings; arguments go before the environment.

    Raises:
        UsageError: a setting that can't be; or no token, and an address that others reach.
    """
    host = host or environ.get(CONSOLE_HOST) or LOOPBACK[0]
    token = environ.get(CONSOLE_TOKEN, "").strip()
    if not token and host not in LOOPBACK:
        raise UsageError(
            f"a console that others reach (on {host}) needs a token: set {CONSOLE_TOKEN} to a long random text"
        )
    return Settings(
        host,
        _port(environ.get(CONSOLE_PORT)) if port is None else port,
        token or secrets.token_urlsafe(24),
        generated=not token,
        log_level=_word(environ, LOG_LEVEL, parsing.log_level) or "info",
        log_format=_word(environ, LOG_FORMAT, parsing.log_format),
    )


def _word(environ: Mapping[str, str], name: str, parse: Callable[[str], str]) -> str:
    text = environ.get(name, "").strip()
    try:
        return parse(text) if text else ""
    except ValueError as exc:
        raise UsageError(f"{name}={text:.40} {exc}") from None


def _port(text: str | None) -> int:
    if not text:
        return DEFAULT_CONSOLE_PORT
    if text.isascii() and text.isdigit() and int(text) <= 65_535:
        return int(text)
    raise UsageError(f"{CONSOLE_PORT}={text:.40} must be a port, a whole number up to 65535")
