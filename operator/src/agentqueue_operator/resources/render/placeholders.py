"""What rendering takes where there is no cluster to ask: `agentqueue render`, golden files."""

from typing import Final

from agentqueue.spec import ManagedRedis, ResolvedAgent, ResolvedQueue, ScalingMode
from agentqueue_operator.resources.render.inputs import Images, RenderContext

PASSWORD: Final = "PLACEHOLDER-the-operator-generates-it"  # noqa: S105  # it says that it is none
OWN_PASSWORD: Final = "PLACEHOLDER-from-your-Secret-{name}-key-{key}"  # noqa: S105
TOKEN: Final = PASSWORD


def offline(queue: ResolvedQueue, namespace: str, images: Images) -> RenderContext:
    """Placeholders for secrets, no owner, and the pods that there are while all queues are empty."""
    return RenderContext(
        namespace=namespace,
        images=images,
        replicas={agent.name: _at_rest(agent, suspended=queue.suspend) for agent in queue.agents},
        password=_password(queue),
        console_token=TOKEN,
        pod_monitors=True,
    )


def _at_rest(agent: ResolvedAgent, *, suspended: bool) -> int | None:
    if agent.scaling.mode is ScalingMode.EXTERNAL:
        return None
    if suspended:
        return 0
    return agent.scaling.replicas if agent.scaling.mode is ScalingMode.FIXED else agent.scaling.min_replicas


def _password(queue: ResolvedQueue) -> str | None:
    if not isinstance(queue.redis, ManagedRedis):
        return None
    own = queue.redis.auth.password_secret_ref
    return PASSWORD if own is None else OWN_PASSWORD.format(name=own.name, key=own.key)
