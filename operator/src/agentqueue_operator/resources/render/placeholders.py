"""Inputs of rendering without a cluster, for `agentqueue render` and golden files."""

from typing import Final

from agentqueue.spec import ManagedRedis, ResolvedAgent, ResolvedQueue, ScalingMode
from agentqueue_operator.resources.render.inputs import Images, RenderContext

GENERATED: Final = "PLACEHOLDER-the-operator-generates-it"
"""Placeholder for a password or token that the operator generates."""
FROM_SECRET: Final = "PLACEHOLDER-from-your-Secret-{name}-key-{key}"  # noqa: S105  # not a password
"""Placeholder for a password from the user's Secret."""


def offline_context(queue: ResolvedQueue, namespace: str, images: Images) -> RenderContext:
    """Return a context with placeholders for secrets, no owner, and the pods that run while all queues are empty."""
    password: str | None = None
    if isinstance(queue.redis, ManagedRedis):
        own = queue.redis.auth.password_secret_ref
        password = GENERATED if own is None else FROM_SECRET.format(name=own.name, key=own.key)
    return RenderContext(
        namespace=namespace,
        images=images,
        replicas={agent.name: _idle_replicas(agent, suspended=queue.suspend) for agent in queue.agents},
        password=password,
        console_token=GENERATED,
        pod_monitors=True,
    )


def _idle_replicas(agent: ResolvedAgent, *, suspended: bool) -> int | None:
    if agent.scaling.mode is ScalingMode.EXTERNAL:
        return None
    if suspended:
        return 0
    return agent.scaling.replicas if agent.scaling.mode is ScalingMode.FIXED else agent.scaling.min_replicas
