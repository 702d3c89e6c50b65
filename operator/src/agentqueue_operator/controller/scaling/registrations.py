"""Observes which versions of an AgentQueue's workers have registered, and keeps that in Redis.

A version is the pod template of the Deployment. A pod belongs to it if its ReplicaSet has the same template: by this
the Deployment controller finds the ReplicaSet of the present version too. Nothing is added to the pods, because that
would restart them.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from agentqueue.errors import AgentQueueError
from agentqueue.model.template import KeptTemplate, TemplateState
from agentqueue.spec import ResolvedQueue
from agentqueue_operator.autoscaling.queue_metrics import QueueMetrics
from agentqueue_operator.autoscaling.registration import RegistrationStep, registration_step
from agentqueue_operator.controller.ports import AgentPods, ApiRefused, ApiUnavailable, Cluster
from agentqueue_operator.controller.scaling.worker_pods import replica_sets_of, serves_or_will, template_of
from agentqueue_operator.queues.ports import Queues
from agentqueue_operator.resources.kinds import REPLICA_SET

MAX_REPLICA_SETS: Final = 256
"""Number of ReplicaSets whose template is remembered. It never changes, so it is read once."""


@dataclass(frozen=True, slots=True)
class AgentRegistration:
    """The registration of an agent's present version."""

    registering: bool = False
    """No worker of this version has registered yet."""
    jobs: int | None = None
    """Number of jobs that this version has registered; None if it has registered nothing, or that is not known."""


UNKNOWN: Final = AgentRegistration()
"""Registration of an agent that has no Deployment, or whose queue was never read. No pod runs for it."""


class RegistrationObserver:
    """Observes the registrations of the agents of one AgentQueue.

    Args:
        cluster: the Kubernetes API.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._templates: dict[str, str] = {}
        """Name of a ReplicaSet -> digest of its pod template."""
        self._known: dict[str, AgentRegistration] = {}
        """Registration of each agent when it could be read last."""

    async def observe(
        self,
        queue: ResolvedQueue,
        agents: Mapping[str, AgentPods],
        metrics: Mapping[str, QueueMetrics],
        queues: Queues | None,
    ) -> Mapping[str, AgentRegistration]:
        """Return the registrations of the agents, and keep those that are new.

        Args:
            queue: the AgentQueue.
            agents: Deployment and pods of the agents, by name.
            metrics: metrics of the queues that could be read.
            queues: the queues in Redis; None: Redis is not available yet.

        Raises:
            NotLeading: another replica of the operator leads.
        """
        self._known = {agent.name: self._known.get(agent.name, UNKNOWN) for agent in queue.agents}
        templates = {
            agent.queue_name: template_of(deployment)
            for agent in queue.agents
            if agent.queue_name in metrics
            and agent.name in agents
            and (deployment := agents[agent.name].deployment) is not None
        }
        if queues is not None and templates:
            with suppress(AgentQueueError):  # The connection reports the error, and the next reconcile tries again.
                await self._read(queue, templates, agents, metrics, queues=queues)
        return self._known

    async def _read(
        self,
        queue: ResolvedQueue,
        templates: Mapping[str, str],
        agents: Mapping[str, AgentPods],
        metrics: Mapping[str, QueueMetrics],
        *,
        queues: Queues,
    ) -> None:
        states = await queues.read_templates(templates)
        for agent in queue.agents:
            template = templates.get(agent.queue_name)
            if template is not None:
                heard = await self._heard(template, agents[agent.name], metrics[agent.queue_name])
                kept = await self._kept(agent.queue_name, template, states[agent.queue_name], heard, queues=queues)
                jobs = kept.jobs if kept is not None and kept.fingerprint else None
                self._known[agent.name] = AgentRegistration(registering=kept is None, jobs=jobs)

    async def _kept(
        self, queue: str, template: str, state: TemplateState, heard: frozenset[str | None], *, queues: Queues
    ) -> KeptTemplate | None:
        """Carry out the step for a version. Return its registration; None if it has none yet."""
        kept = state.kept
        step = registration_step(
            kept=None if kept is None else kept.fingerprint, registered=state.registered, heard=heard
        )
        if step in {RegistrationStep.KEEP, RegistrationStep.KEEP_NONE}:
            self._cluster.check_leads()
            fingerprint = state.registered if step is RegistrationStep.KEEP else ""
            return await queues.keep_template(queue, template, fingerprint)
        if step is RegistrationStep.RESTORE and kept is not None:
            self._cluster.check_leads()
            await queues.restore_registration(queue, kept.fingerprint)
        return kept

    async def _heard(self, template: str, agent: AgentPods, metrics: QueueMetrics) -> frozenset[str | None]:
        """Return the fingerprints that live workers of a version report."""
        heard: set[str | None] = set()
        for pod in filter(serves_or_will, agent.pods):
            heartbeat = metrics.heartbeats.get(pod["metadata"]["name"])
            if heartbeat is None:
                continue
            for name in replica_sets_of([pod]):
                if await self._template_of(pod["metadata"]["namespace"], name, template) == template:
                    heard.add(heartbeat.registration)
        return frozenset(heard)

    async def _template_of(self, namespace: str, name: str, present: str) -> str | None:
        """Return the digest of the pod template of a ReplicaSet. None if it could not be read now.

        With the rights of an older chart the operator may not read ReplicaSets. Then each has the present template, so
        that any worker counts: the agent would never be Ready otherwise.
        """
        if name not in self._templates:
            try:
                live = await self._cluster.get(REPLICA_SET, namespace, name)
            except ApiRefused:
                return present
            except ApiUnavailable:
                return None
            if live is None:
                return None
            while len(self._templates) >= MAX_REPLICA_SETS:
                del self._templates[next(iter(self._templates))]
            self._templates[name] = template_of(live)
        return self._templates[name]
