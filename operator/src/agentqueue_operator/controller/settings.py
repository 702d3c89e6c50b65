"""The operator's settings, read from the environment (`AGENTQUEUE_OPERATOR_*`). The chart sets them."""

import contextlib
import socket
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from agentqueue.errors import UsageError
from agentqueue.service import parsing

PREFIX: Final = "AGENTQUEUE_OPERATOR_"
"""Prefix of all variables."""
PORT: Final = f"{PREFIX}PORT"
"""Variable of the port, for error messages about it."""
NAMESPACE_FILE: Final = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"
"""File in a pod that holds the pod's namespace."""
LABEL_CHARS: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")
"""Characters of a DNS label (RFC 1123)."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings. Each is read from the variable `PREFIX` + its name in capitals. Durations are in seconds."""

    namespaces: tuple[str, ...] = ()
    """Namespaces whose AgentQueues are reconciled, separated by commas. Empty: all, which requires a ClusterRole."""
    namespace: str = ""
    """The namespace of the operator and its Lease. NetworkPolicies allow traffic from there.

    Default: the pod's namespace; outside of a pod `default`.
    """
    lease_name: str = "agentqueue-operator"
    """Name of the Lease for leader election. Two operators for different namespaces need two names."""
    identity: str = ""
    """Name of this replica in the Lease. A random part is added, so that a restarted container is another holder.

    Default: the host name, which is the pod's name.
    """
    worker_image: str = "agentqueue-worker:0.1.0"
    """Image of agents whose resource names none (their code comes from a ConfigMap)."""
    redis_image: str = "redis:7.4-alpine"
    """Image of a managed Redis whose resource names none: Redis 7 or newer, or Valkey 7.2 or newer."""
    console_image: str = "agentqueue-operator:0.1.0"
    """Image of a console whose resource names none: the operator's image contains the console."""
    read_secrets: bool = True
    """Read the Secrets that agents name in env and envFrom, and roll their pods when one changes.

    False: the operator reads only the Secrets that it creates and those with the address or password of Redis.
    """
    port: int = 8080
    """Port of /healthz, /readyz and /metrics; 0: they are not served."""
    resync: float = 5.0
    """Seconds between two reconciles without an event. Each reads the queues for scaling: a short period reacts to
    short bursts, a long one puts less load on Redis and the API server."""
    log_level: str = "info"
    """Minimum level of log lines."""
    log_format: str = ""
    """`json` or `console`. Default: `console` on a terminal, else `json`."""
    instance: str = field(default_factory=lambda: uuid.uuid4().hex[:8])
    """Random part of the holder name. It is not read from the environment."""

    @property
    def holder(self) -> str:
        """Return the name of this process in the Lease."""
        return f"{self.identity or socket.gethostname()}_{self.instance}"


def _label(text: str) -> str:
    if len(text) > 63 or not LABEL_CHARS.issuperset(text) or text.startswith("-") or text.endswith("-"):
        raise ValueError("must have at most 63 lower-case letters, digits and dashes, without a dash at either end")
    return text


def _image(text: str) -> str:
    if any(char.isspace() for char in text):
        raise ValueError("must be the name of an image, without spaces")
    return text


_PARSERS: Final[Mapping[str, Callable[[str], Any]]] = {
    "namespaces": lambda text: tuple(dict.fromkeys(_label(it.strip()) for it in text.split(",") if it.strip())),
    "namespace": _label,
    "lease_name": _label,
    "identity": str,
    "worker_image": _image,
    "redis_image": _image,
    "console_image": _image,
    "read_secrets": lambda text: parsing.one_of("true", "false")(text) == "true",
    "port": parsing.port,
    "resync": parsing.number(0.5, 300, unit="seconds"),
    "log_level": parsing.log_level,
    "log_format": parsing.log_format,
}
VARIABLES: Final = tuple(PREFIX + name.upper() for name in _PARSERS)


def read_settings(environ: Mapping[str, str], *, namespace_file: str = NAMESPACE_FILE) -> Settings:
    """Return the settings from the environment. Empty variables count as unset.

    Args:
        environ: the environment.
        namespace_file: the file that holds the pod's namespace.

    Raises:
        UsageError: a value is out of range, or a variable with the prefix is unknown; the message names it.
    """
    unknown = sorted(name for name in environ if name.startswith(PREFIX) and name not in VARIABLES)
    if unknown:
        raise UsageError(f"{unknown[0]} is not a setting; the settings are {', '.join(VARIABLES)}")
    values: dict[str, Any] = {}
    with contextlib.suppress(OSError):  # the process does not run in a pod
        values["namespace"] = Path(namespace_file).read_text().strip()
    values["namespace"] = values.get("namespace") or "default"
    for name, parse in _PARSERS.items():
        variable = PREFIX + name.upper()
        if text := environ.get(variable, "").strip():
            try:
                values[name] = parse(text)
            except ValueError as exc:
                raise UsageError(f"{variable}={text!r:.80}: {exc}") from exc
    assert values.keys() <= {it.name for it in fields(Settings)}
    return Settings(**values)
