"""Objects of the workers, a Deployment per agent.

No part of a pod template may depend on the operator's version: an upgrade must not restart workers. For the same
reason, a new setting in `worker_environment` should have the default None, which adds no variable.
"""

import re
from typing import Final

from agentqueue.service import environment as env
from agentqueue.spec import ResolvedAgent, ResolvedQueue
from agentqueue.spec.worker_environment import worker_environment
from agentqueue_operator.resources.kinds import DEPLOYMENT, DISRUPTION_BUDGET, POD_MONITOR, SERVICE_ACCOUNT, Object
from agentqueue_operator.resources.render.connection import connection
from agentqueue_operator.resources.render.inputs import RenderContext
from agentqueue_operator.resources.render.names import (
    AGENT_LABEL,
    NOT_REMOVABLE,
    QUEUE_LABEL,
    REMOVABLE_LABEL,
    WORKER,
    labels,
    selector,
    worker_name,
    workers_name,
)
from agentqueue_operator.resources.render.objects import new_object
from agentqueue_operator.resources.render.pod_templates import (
    HTTP,
    MOUNTS,
    Container,
    Pod,
    env_from_field,
    env_var,
    http_probe,
    non_empty,
    pod_template,
    volume_and_mount,
)

PORT: Final = 8401
"""Port of probes and metrics."""
CODE: Final = "code"
"""Volume with the files of `codeFrom`."""
START_S: Final = 600
"""Startup limit, in seconds, for imports and startup hooks that load models. A failed import ends the worker."""
HISTORY: Final = 3
"""Number of old ReplicaSets to keep, for `kubectl rollout undo`."""
IMPORT_PATH: Final = "PYTHONPATH"
"""Variable with the directories that Python imports from."""


def worker_objects(queue: ResolvedQueue, context: RenderContext) -> tuple[Object, ...]:
    """Return the objects of the workers of all agents."""
    account = new_object(
        SERVICE_ACCOUNT, workers_name(queue.name), labels(queue.name, WORKER), automountServiceAccountToken=False
    )
    per_agent = (item for agent in queue.agents for item in _agent_objects(queue, agent, context))
    return (account, *per_agent, *_monitors(queue, context))


def _agent_objects(queue: ResolvedQueue, agent: ResolvedAgent, context: RenderContext) -> tuple[Object, ...]:
    name, marks = worker_name(queue.name, agent.name), labels(queue.name, WORKER, agent.name)
    replicas = context.replicas.get(agent.name)
    spec = {
        **({} if replicas is None else {"replicas": replicas}),
        "selector": {"matchLabels": selector(queue.name, WORKER, agent.name)},
        "strategy": {
            "type": "RollingUpdate",
            "rollingUpdate": {"maxSurge": agent.rollout.max_surge, "maxUnavailable": agent.rollout.max_unavailable},
        },
        "progressDeadlineSeconds": agent.rollout.progress_deadline_seconds,
        "revisionHistoryLimit": HISTORY,
        "template": worker_template(queue, agent, context),
    }
    deployment = new_object(DEPLOYMENT, name, marks, spec=spec)
    budget = queue.pod_disruption_budget.workers
    if not budget.enabled:
        return (deployment,)
    allowed = {"maxUnavailable": budget.max_unavailable, "unhealthyPodEvictionPolicy": "AlwaysAllow"}
    chosen = {"selector": {"matchLabels": selector(queue.name, WORKER, agent.name)}}
    return (deployment, new_object(DISRUPTION_BUDGET, name, marks, spec={**allowed, **chosen}))


def worker_template(queue: ResolvedQueue, agent: ResolvedAgent, context: RenderContext) -> Object:
    """Return the pod template of an agent's workers."""
    return pod_template(
        _container(queue, agent, context),
        Pod(
            owner=f"agent {agent.name}",
            labels={**labels(queue.name, WORKER, agent.name), REMOVABLE_LABEL: NOT_REMOVABLE},
            config=context.password,
            content_hash=context.content_hashes.get(agent.name),
            service_account=workers_name(queue.name),
            grace_s=agent.termination_grace_period_seconds,
            templates=agent.pod_templates,
        ),
    )


def _container(queue: ResolvedQueue, agent: ResolvedAgent, context: RenderContext) -> Container:
    to_redis = connection(queue)
    code = [volume_and_mount(CODE, {"configMap": {"name": agent.code_from.config_map.name}})] if agent.code_from else []
    resources = non_empty(requests=dict(agent.requests), limits=dict(agent.limits))
    return Container(
        name=WORKER,
        image=agent.image or context.images.worker,
        body={
            "ports": [{"name": HTTP, "containerPort": PORT, "protocol": "TCP"}],
            # A thread answers all three, so neither a blocking handler nor an unavailable Redis fails a probe.
            "startupProbe": http_probe("/readyz", period=1, timeout=5, failures=START_S),
            "readinessProbe": http_probe("/readyz", period=5, timeout=5, failures=3),
            "livenessProbe": http_probe("/healthz", period=10, timeout=10, failures=6),
            **non_empty(resources=resources),
        },
        env=_variables(agent, to_redis.env),
        env_from=tuple(it.model_dump(mode="json", by_alias=True, exclude_none=True) for it in agent.env_from),
        volumes=(*to_redis.volumes, *(volume for volume, _ in code)),
        mounts=(*to_redis.mounts, *(mount for _, mount in code)),
        needs_tmp=True,  # for handlers and their libraries
    )


def _variables(agent: ResolvedAgent, to_redis: tuple[Object, ...]) -> tuple[Object, ...]:
    """Return the worker's variables. Ours are first, so that the user's may refer to them but not replace them."""
    ours = [
        *to_redis,
        *(env_var(name, value) for name, value in worker_environment(agent).items()),
        env_from_field(env.WORKER_NAME, "metadata.name"),
        env_from_field(env.POD_UID, "metadata.uid"),
        env_var(env.PROBE_PORT, PORT),
    ]
    taken = {item["name"] for item in ours}
    users = [it.model_dump(mode="json", by_alias=True, exclude_none=True) for it in agent.env if it.name not in taken]
    users = _with_code(users, agent)
    if not any(item["name"] == "HOME" for item in users):  # the user `nonroot` has no home, but libraries write there
        users.insert(0, env_var("HOME", "/tmp"))  # noqa: S108  # in the container
    return (*ours, *users)


def _with_code(users: list[Object], agent: ResolvedAgent) -> list[Object]:
    """Return the user's variables with the directory of `codeFrom` before the user's own import path."""
    own = next((item for item in users if item["name"] == IMPORT_PATH), None)
    if agent.code_from is None or (own and "valueFrom" in own):
        return users
    path = ":".join(filter(None, (f"{MOUNTS}/{CODE}", own.get("value") if own else None)))
    return [env_var(IMPORT_PATH, path), *(item for item in users if item is not own)]


def _monitors(queue: ResolvedQueue, context: RenderContext) -> tuple[Object, ...]:
    wanted = queue.monitoring.pod_monitor
    if not (wanted.enabled and context.pod_monitors):
        return ()
    endpoint = {
        "port": HTTP,
        "path": "/metrics",
        "interval": f"{wanted.interval_seconds}s",
        # The same labels as the operator's metrics: two AgentQueues of a namespace may have queues of the same name.
        "relabelings": [_label_from(QUEUE_LABEL, "agentqueue"), _label_from(AGENT_LABEL, "agent")],
    }
    spec = {"selector": {"matchLabels": selector(queue.name, WORKER)}, "podMetricsEndpoints": [endpoint]}
    marks = {**wanted.labels, **labels(queue.name, WORKER)}
    return (new_object(POD_MONITOR, workers_name(queue.name), marks, spec=spec),)


def _label_from(pods_label: str, name: str) -> Object:
    """Return a relabeling that turns a label of the pod into a label of its metrics."""
    return {
        "sourceLabels": [f"__meta_kubernetes_pod_label_{re.sub('[^a-zA-Z0-9]', '_', pods_label)}"],
        "targetLabel": name,
    }
