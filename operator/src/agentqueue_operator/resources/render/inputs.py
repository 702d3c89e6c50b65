"""Inputs of rendering besides the resource itself."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Images:
    """Container images for resources that name none. A change restarts the pods that use them."""

    worker: str
    redis: str
    console: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderContext:
    """Facts of the cluster and of the operator that manifests depend on."""

    namespace: str
    images: Images
    owner: str | None = None
    """UID of the AgentQueue, for owner references. None offline."""
    replicas: Mapping[str, int | None] = field(default_factory=dict)
    """Number of worker pods, by agent. If None or absent, the field is not rendered and its other owner keeps it."""
    password: str | None = field(default=None, repr=False)
    """Password of the managed Redis, generated or from the user's Secret.

    None if the user's Secret is missing; then the connection Secret is not rendered. A known password must not become
    None later, because that would look like a change of password and restart every pod.
    """
    console_token: str | None = field(default=None, repr=False)
    """Generated token, unused if the resource names a Secret. If None, no Secret is rendered."""
    content_hashes: Mapping[str, str] = field(default_factory=dict)
    """Hash of the content of all `references_of`, by agent and for `redis` and `console`.

    A change rolls the pods. If it is absent (`rbac.readSecrets: false`), changes of content do not roll them.
    """
    operator_namespace: str | None = None
    """Namespace of the operator, which the NetworkPolicy admits. None if the operator runs outside of the cluster."""
    pod_monitors: bool = False
    """True if the cluster has the PodMonitor kind."""
