"""What rendering takes from the place where the AgentQueue lives, beside the resource itself."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Images:
    """Container images where the resource names none. A change of these restarts the pods that use them."""

    worker: str
    redis: str
    console: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderContext:
    """All that the resource does not say."""

    namespace: str
    images: Images
    owner: str | None = None
    """The AgentQueue's uid, for owner references; None offline."""
    replicas: Mapping[str, int | None] = field(default_factory=dict)
    """Worker pods by agent; None or absent: not rendered, so that whoever set it keeps it."""
    password: str | None = field(default=None, repr=False)
    """The managed Redis's, generated or the user's. None: not known (the user's Secret is missing), so the connection
    Secret is not rendered. Once known it must not become None again: that would look like a change of password."""
    console_token: str | None = field(default=None, repr=False)
    """The generated one; not looked at where the resource names a Secret. None: no Secret is rendered."""
    content_hashes: Mapping[str, str] = field(default_factory=dict)
    """By agent, `redis` and `console`: a hash over the content of what `references_of` names. A change rolls the pods;
    absent (`rbac.readSecrets: false`): they are not rolled."""
    operator_namespace: str | None = None
    """From where the operator reads the queues; let in by the NetworkPolicy. None: it does not run in the cluster."""
    pod_monitors: bool = False
    """Whether the cluster knows PodMonitors."""
