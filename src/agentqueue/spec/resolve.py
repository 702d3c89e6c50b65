"""Resolve a resource: merge each agent with `agentDefaults` and the built-in defaults.

`agentqueue up`, `render` and the operator use only the result.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from agentqueue.model.schedule import Schedule
from agentqueue.spec.agents import AgentDefaults, AgentSpec, Overlay
from agentqueue.spec.defaults import AgentSettings, DeadLetterSettings
from agentqueue.spec.pods import CodeFrom, EnvFrom, EnvVar, PodTemplate
from agentqueue.spec.redis import ExternalRedis, ManagedRedis
from agentqueue.spec.resource import AgentQueue, Console, Monitoring, NetworkPolicy, PodDisruptionBudgets


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedAgent(AgentSettings):
    """An agent in which every field is set."""

    name: str
    queue_name: str
    handler: str
    image: str | None = None
    """Container image. None for the caller's worker image."""
    code_from: CodeFrom | None = None
    dead_letter_queue: str | None = None
    """Queue of the agent in `on_dead_letter`."""
    env: tuple[EnvVar, ...] = ()
    env_from: tuple[EnvFrom, ...] = ()
    requests: Mapping[str, str]
    limits: Mapping[str, str]
    pod_templates: tuple[PodTemplate, ...] = ()
    """Patches of the rendered pod, in this order."""
    schedules: tuple[Schedule, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedQueue:
    """An AgentQueue in which every field is set."""

    name: str
    namespace: str | None
    uid: str | None = None
    """UID of the resource. None if it is not in a cluster."""
    suspend: bool
    redis: ManagedRedis | ExternalRedis
    agents: tuple[ResolvedAgent, ...]
    console: Console
    monitoring: Monitoring
    network_policy: NetworkPolicy
    pod_disruption_budget: PodDisruptionBudgets

    def agent(self, name: str) -> ResolvedAgent:
        """Return the agent of that name.

        Raises:
            KeyError: the AgentQueue has no such agent.
        """
        for agent in self.agents:
            if agent.name == name:
                return agent
        raise KeyError(name)


def resolve(resource: AgentQueue) -> ResolvedQueue:
    """Return the resource with every field set. It must be valid, from `load` or the API server."""
    spec = resource.spec
    shared = spec.agent_defaults or AgentDefaults()
    queues = {agent.name: agent.queue_name or agent.name for agent in spec.agents}
    return ResolvedQueue(
        name=resource.metadata.name,
        namespace=resource.metadata.namespace,
        uid=resource.metadata.uid,
        suspend=spec.suspend,
        redis=spec.redis.external or spec.redis.managed or ManagedRedis(),
        agents=tuple(_agent(agent, shared, queues) for agent in spec.agents),
        console=spec.console,
        monitoring=spec.monitoring,
        network_policy=spec.network_policy,
        pod_disruption_budget=spec.pod_disruption_budget,
    )


def _agent(agent: AgentSpec, shared: AgentDefaults, queues: Mapping[str, str]) -> ResolvedAgent:
    layers = (agent, shared)
    dead_letter = _dead_letter(agent, shared)
    settings: AgentSettings = fill(AgentSettings, layers)
    backoff = settings.retry.backoff
    longest = max(backoff.delay_seconds, backoff.max_delay_seconds)
    settings = replace(settings, retry=replace(settings.retry, backoff=replace(backoff, max_delay_seconds=longest)))
    return ResolvedAgent(
        **{field.name: getattr(settings, field.name) for field in fields(AgentSettings)}
        | {"on_dead_letter": dead_letter},
        name=agent.name,
        queue_name=queues[agent.name],
        handler=agent.handler,
        image=agent.image or shared.image,
        code_from=agent.code_from or shared.code_from,
        dead_letter_queue=queues[dead_letter.agent] if dead_letter else None,
        env=tuple({var.name: var for var in (*(shared.env or ()), *(agent.env or ()))}.values()),
        env_from=(*(shared.env_from or ()), *(agent.env_from or ())),
        requests=_amounts(layers, "requests"),
        limits=_amounts(layers, "limits"),
        schedules=tuple(schedule.resolved() for schedule in agent.schedules or ()),
        pod_templates=tuple(t for t in (shared.pod_template, agent.pod_template) if t is not None),
    )


def _dead_letter(agent: AgentSpec, shared: AgentDefaults) -> DeadLetterSettings | None:
    """Return the receiver of dead letters. The agent that agentDefaults names does not receive its own."""
    target = agent.on_dead_letter or shared.on_dead_letter
    if target is None or target.agent == agent.name:
        return None
    merged: DeadLetterSettings = fill(DeadLetterSettings, (target,))
    return merged


def _amounts(layers: tuple[AgentSpec, AgentDefaults], kind: str) -> dict[str, str]:
    given = (getattr(layer.resources, kind) for layer in reversed(layers) if layer.resources)
    return {name: amount for amounts in given if amounts for name, amount in amounts.items()}


WHOLE = frozenset({"rate_limit", "on_dead_letter"})
"""Settings that are not merged: the first layer that has one wins, because their fields depend on each other."""


def fill(filled: type, layers: Iterable[Overlay]) -> Any:
    """Return an instance of `filled`. Each field comes from the first layer that sets it, else from its default."""
    given = tuple(layers)
    values = {field.name: _first(field.name, given) for field in fields(filled)}
    return filled(**{name: value for name, value in values.items() if value is not None})


def _first(name: str, layers: tuple[Overlay, ...]) -> Any:
    present = [value for layer in layers if (value := getattr(layer, name)) is not None]
    if not present:
        return None
    if not isinstance(present[0], Overlay):
        return present[0]
    return fill(present[0].filled, present[:1] if name in WHOLE else present)
