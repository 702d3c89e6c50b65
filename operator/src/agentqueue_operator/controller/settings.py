"""The operator's settings, read once from the environment (`AGENTQUEUE_OPERATOR_*`): the chart writes them."""

import socket
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from agentqueue.errors import UsageError
from agentqueue.service import parsing

PREFIX: Final = "AGENTQUEUE_OPERATOR_"
PORT: Final = f"{PREFIX}PORT"
NAMESPACE_FILE: Final = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"
"""Where a pod finds the namespace that it runs in."""
LABEL_CHARS: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")


@dataclass(frozen=True, slots=True)
class Settings:
    """Each is the variable of its name in capitals, with the prefix. Durations in seconds."""

    namespaces: tuple[str, ...] = ()
    """The namespaces whose AgentQueues are served, separated by commas. Empty: all, which needs a ClusterRole."""
    namespace: str = ""
    """Where the operator itself runs and keeps its Lease; NetworkPolicies let it in from there.

    Default: as the ServiceAccount's files tell, else `default`.
    """
    lease_name: str = "agentqueue-operator"
    """The Lease that elects one of several replicas. Two operators for different namespaces need two names."""
    identity: str = ""
    """Who this replica is in the Lease; a random part is added, so that a restarted container is another one.

    Default: the host's name, which is the pod's.
    """
    worker_image: str = "agentqueue-worker:0.1.0"
    """Image of agents that name none (their code comes from a ConfigMap)."""
    redis_image: str = "redis:7.4-alpine"
    """Image of a managed Redis whose resource names none: Redis 7 or newer, or Valkey 7.2 or newer."""
    console_image: str = "agentqueue-operator:0.1.0"
    """Image of a console whose resource names none: the operator's own has it."""
    read_secrets: bool = True
    """Read the Secrets that agents name in env and envFrom, and roll their pods when one changes.

    False: the operator reads only the Secrets that it makes and those that hold Redis's address or password.
    """
    port: int = 8080
    """Where /healthz, /readyz and /metrics are served; 0: nowhere."""
    resync: float = 5.0
    """An AgentQueue without news is looked at so often: its queues are read for scaling. Short bursts want it short,
    Redis and the API server want it long."""
    log_level: str = "info"
    log_format: str = ""
    """json or console. Default: console on a terminal, JSON elsewhere."""
    instance: str = field(default_factory=lambda: uuid.uuid4().hex[:8])
    """Not in the environment: tells this process from the one that ran here before."""

    @property
    def holder(self) -> str:
        """The name in the Lease."""
        return f"{self.identity or socket.gethostname()}_{self.instance}"


def _truth(text: str) -> bool:
    return parsing.one_of("true", "false")(text) == "true"


def _label(text: str) -> str:
    if len(text) > 63 or not LABEL_CHARS.issuperset(text) or text.startswith("-") or text.endswith("-"):
        raise ValueError("must have up to 63 small letters, digits and dashes, no dash at an end")
    return text


def _labels(text: str) -> tuple[str, ...]:
    names = (name.strip() for name in text.split(","))
    return tuple(dict.fromkeys(_label(name) for name in names if name))


def _image(text: str) -> str:
    if any(char.isspace() for char in text):
        raise ValueError("must be an image's name, without spaces")
    return text


_PARSERS: Final[Mapping[str, Callable[[str], Any]]] = {
    "namespaces": _labels,
    "namespace": _label,
    "lease_name": _label,
    "identity": str,
    "worker_image": _image,
    "redis_image": _image,
    "console_image": _image,
    "read_secrets": _truth,
    "port": parsing.port,
    "resync": parsing.number(0.5, 300, unit="seconds"),
    "log_level": parsing.log_level,
    "log_format": parsing.log_format,
}
VARIABLES: Final = tuple(PREFIX + name.upper() for name in _PARSERS)


def read_settings(environ: Mapping[str, str], *, namespace_file: str = NAMESPACE_FILE) -> Settings:
    """The settings in the environment. Empty variables count as absent.

    Raises:
        UsageError: a value out of its range, or a variable of ours that there is none of; the message names it.
    """
    unknown = sorted(name for name in environ if name.startswith(PREFIX) and name not in VARIABLES)
    if unknown:
        raise UsageError(f"{unknown[0]}: there is no such setting; there are {', '.join(VARIABLES)}")
    values = {name: _parsed(environ, name) for name in _PARSERS if environ.get(PREFIX + name.upper(), "").strip()}
    assert values.keys() <= {it.name for it in fields(Settings)}
    values.setdefault("namespace", _own_namespace(Path(namespace_file)))
    return Settings(**values)


def _parsed(environ: Mapping[str, str], name: str) -> Any:
    variable = PREFIX + name.upper()
    text = environ[variable].strip()
    try:
        return _PARSERS[name](text)
    except ValueError as exc:
        raise UsageError(f"{variable}={text!r:.80}: {exc}") from exc


def _own_namespace(file: Path) -> str:
    try:
        return file.read_text().strip() or "default"
    except OSError:
        return "default"
