"""Resources that keep and break each rule, and mutations of one: for the offline checks and a real API server."""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]


def resource(name: str = "case", **spec: Any) -> Json:
    """An AgentQueue of agents `a` and `b`, with these parts of its spec instead."""
    agents = [{"name": "a", "handler": "m:a"}, {"name": "b", "handler": "m:b"}]
    kind = {"apiVersion": "agentqueue.dev/v1alpha1", "kind": "AgentQueue"}
    return {**kind, "metadata": {"name": name}, "spec": {"agents": agents, **spec}}


def agent(defaults: Mapping[str, Any] | None = None, **settings: Any) -> Json:
    """An AgentQueue whose agent `a` has these settings, beside `b`, under these agentDefaults."""
    made = resource(agents=[{"name": "a", "handler": "m:a", **settings}, {"name": "b", "handler": "m:b"}])
    return made if defaults is None else {**made, "spec": {**made["spec"], "agentDefaults": dict(defaults)}}


def managed(**settings: Any) -> Json:
    """An AgentQueue with a managed Redis of these settings."""
    return resource(redis={"managed": settings})


def storage(**settings: Any) -> Json:
    """An AgentQueue whose managed Redis has this storage."""
    return managed(storage=settings)


def scaled(defaults: Mapping[str, Any] | None = None, **scaling: Any) -> Json:
    """An AgentQueue whose agent `a` has this scaling, over that of agentDefaults."""
    return agent(None if defaults is None else {"scaling": dict(defaults)}, scaling=scaling)


def scheduled(**settings: Any) -> Json:
    """An AgentQueue whose agent `a` has a schedule of these settings."""
    return agent(schedules=[{"name": "nightly", "cron": "0 3 * * *", "job": "report", **settings}])


def variable(**settings: Any) -> Json:
    """An AgentQueue with an environment variable of these settings."""
    return agent(env=[{"name": "V", **settings}])


def peer(**settings: Any) -> Json:
    """An AgentQueue that lets this peer reach its Redis."""
    return resource(networkPolicy={"redis": {"allowFrom": [settings]}})


def evictable(at_once: int | str) -> Json:
    """An AgentQueue of whose workers so many may be evicted at once."""
    return resource(podDisruptionBudget={"workers": {"enabled": True, "maxUnavailable": at_once}})


EXTERNAL = resource(redis={"external": {"urlSecretRef": {"name": "s"}}})
KEY = {"name": "s", "key": "k"}
STATIC = {"behavior": "Static"}


@dataclass(frozen=True)
class RuleCases:
    """What breaks a rule, each with the path that is shown for it, and what comes near but keeps it."""

    refused: list[tuple[Json, str]]
    accepted: list[Json] = field(default_factory=list)


@dataclass(frozen=True)
class ChangeCases:
    """The same for a rule about changes: (old, new, path) and (old, new)."""

    refused: list[tuple[Json, Json, str]]
    accepted: list[tuple[Json, Json]]


RULES: Mapping[str, RuleCases] = {
    "name-is-short": RuleCases([(resource("a" * 31), "metadata.name")], [resource("a" * 30)]),
    "name-is-label": RuleCases(
        [(resource("1a"), "metadata.name"), (resource("a.b"), "metadata.name")], [resource("a1-b"), resource("a")]
    ),
    "agent-name-is-free": RuleCases(
        [
            (resource(agents=[{"name": "redis", "handler": "m:a"}]), "spec.agents[0].name"),
            (resource(agents=[{"name": "console", "handler": "m:a"}]), "spec.agents[0].name"),
        ],
        [resource(agents=[{"name": "redis-2", "handler": "m:a"}])],
    ),
    "queue-name-is-free": RuleCases(
        [
            (agent(queueName="aq:x"), "spec.agents[0].queueName"),
            (agent(queueName="arq:job:1"), "spec.agents[0].queueName"),
            (agent(queueName="q:high"), "spec.agents[0].queueName"),
            (agent(queueName="q:dead:fp"), "spec.agents[0].queueName"),
            (agent(queueName="aq"), "spec.agents[0].queueName"),
            (resource(agents=[{"name": "aq", "handler": "m:a"}]), "spec.agents[0].name"),
        ],
        [
            agent(queueName="arq:queue"),
            agent(queueName="q-high"),
            agent(queueName="q:highest"),
            agent(queueName="high"),
        ],
    ),
    "grace-period-is-the-agents": RuleCases(
        [
            (
                agent(podTemplate={"spec": {"terminationGracePeriodSeconds": 30}}),
                "spec.agents[0].podTemplate.spec.terminationGracePeriodSeconds",
            ),
            (
                agent({"podTemplate": {"spec": {"terminationGracePeriodSeconds": 30}}}),
                "spec.agentDefaults.podTemplate.spec.terminationGracePeriodSeconds",
            ),
        ],
        [
            agent(terminationGracePeriodSeconds=30),
            managed(podTemplate={"spec": {"terminationGracePeriodSeconds": 30}}),
        ],
    ),
    "queues-are-unique": RuleCases(
        [
            (agent(queueName="b"), "spec.agents[1].name"),
            (
                resource(agents=[{"name": n, "queueName": "q", "handler": "m:a"} for n in ("a", "b")]),
                "spec.agents[1].queueName",
            ),
        ],
        [
            resource(
                agents=[
                    {"name": "a", "queueName": "b", "handler": "m:a"},
                    {"name": "b", "queueName": "a", "handler": "m:a"},
                ]
            )
        ],
    ),
    "dead-letters-go-to-another-agent": RuleCases(
        [
            (agent(onDeadLetter={"agent": "a"}), "spec.agents[0].onDeadLetter.agent"),
            (agent(onDeadLetter={"agent": "c"}), "spec.agents[0].onDeadLetter.agent"),
        ],
        [agent(onDeadLetter={"agent": "b"})],
    ),
    "default-dead-letters-go-to-an-agent": RuleCases(
        [(agent({"onDeadLetter": {"agent": "c"}}), "spec.agentDefaults.onDeadLetter.agent")],
        [agent({"onDeadLetter": {"agent": "b"}})],
    ),
    "fixed-has-replicas": RuleCases(
        [(scaled(mode="Fixed"), "spec.agents[0].scaling"), (scaled({"mode": "Fixed"}), "spec.agents[0].scaling")],
        [
            scaled(mode="Fixed", replicas=0),
            scaled({"replicas": 2}, mode="Fixed"),
            scaled({"mode": "Fixed", "replicas": 2}),
        ],
    ),
    "replicas-are-for-fixed": RuleCases(
        [
            (scaled(replicas=2), "spec.agents[0].scaling.replicas"),
            (scaled(mode="External", replicas=2), "spec.agents[0].scaling.replicas"),
            (scaled({"mode": "Fixed", "replicas": 1}, mode="Auto", replicas=2), "spec.agents[0].scaling.replicas"),
        ],
        [scaled({"mode": "Fixed", "replicas": 1}, replicas=2), scaled({"replicas": 1}, mode="Auto")],
    ),
    "tunables-are-for-auto": RuleCases(
        [
            (scaled(None, mode="Fixed", replicas=1, **{key: value}), f"spec.agents[0].scaling.{key}")
            for key, value in {
                "minReplicas": 1,
                "maxReplicas": 2,
                "targetWaitSeconds": 9,
                "minIdleSlots": 1,
                "scaleDownWindowSeconds": 9,
                "scaleToZeroAfterSeconds": 9,
                "maxPodsPerMinute": 9,
                "fallback": {},
            }.items()
        ]
        + [(scaled({"mode": "External"}, minReplicas=1), "spec.agents[0].scaling.minReplicas")],
        [scaled({"minReplicas": 2}, mode="External"), scaled({"mode": "External"}, mode="Auto", minReplicas=2)],
    ),
    "min-is-not-above-max": RuleCases(
        [
            (scaled(minReplicas=11), "spec.agents[0].scaling.minReplicas"),
            (scaled(minReplicas=3, maxReplicas=2), "spec.agents[0].scaling.minReplicas"),
            (scaled({"maxReplicas": 2}, minReplicas=3), "spec.agents[0].scaling.minReplicas"),
            (scaled({"minReplicas": 3, "maxReplicas": 9}, maxReplicas=2), "spec.agents[0].scaling.minReplicas"),
        ],
        [
            scaled(minReplicas=10),
            scaled(minReplicas=0, maxReplicas=1),
            scaled({"minReplicas": 11, "maxReplicas": 20}),
            scaled({"maxReplicas": 20}, minReplicas=11),
        ],
    ),
    "static-fallback-has-replicas": RuleCases(
        [(scaled(fallback=STATIC), "spec.agents[0].scaling.fallback")],
        [scaled(fallback={**STATIC, "replicas": 0}), scaled({"fallback": {"replicas": 1}}, fallback=STATIC)],
    ),
    "fallback-replicas-are-for-static": RuleCases(
        [
            (scaled(fallback={"replicas": 1}), "spec.agents[0].scaling.fallback.replicas"),
            (scaled(fallback={"behavior": "Max", "replicas": 1}), "spec.agents[0].scaling.fallback.replicas"),
        ],
        [
            scaled({"fallback": {**STATIC, "replicas": 1}}, fallback={"replicas": 2}),
            scaled({"fallback": {"replicas": 1}}),
        ],
    ),
    "delay-is-not-above-its-cap": RuleCases(
        [
            (
                agent(retry={"backoff": {"delaySeconds": 5, "maxDelaySeconds": 4}}),
                "spec.agents[0].retry.backoff.maxDelaySeconds",
            ),
            (agent(retry={"backoff": {"maxDelaySeconds": 1}}), "spec.agents[0].retry.backoff.maxDelaySeconds"),
            (
                agent({"retry": {"backoff": {"maxDelaySeconds": 10}}}, retry={"backoff": {"delaySeconds": 11}}),
                "spec.agents[0].retry.backoff.maxDelaySeconds",
            ),
        ],
        [
            agent(retry={"backoff": {"delaySeconds": 5, "maxDelaySeconds": 5}}),
            agent(retry={"backoff": {"delaySeconds": 86400}}),
        ],
    ),
    "rollout-can-move": RuleCases(
        [
            (agent(rollout={"maxSurge": 0}), "spec.agents[0].rollout"),
            (agent(rollout={"maxSurge": "0%", "maxUnavailable": "0%"}), "spec.agents[0].rollout"),
            (agent({"rollout": {"maxSurge": 0}}, rollout={"maxUnavailable": 0}), "spec.agents[0].rollout"),
        ],
        [
            agent(rollout={"maxSurge": 0, "maxUnavailable": 1}),
            agent(rollout={"maxUnavailable": 0}),
            agent({"rollout": {"maxUnavailable": "10%"}}, rollout={"maxSurge": "0%"}),
        ],
    ),
    "time-zone-is-known": RuleCases(
        [
            (scheduled(timezone="Mars/Base"), "spec.agents[0].schedules[0].timezone"),
            (scheduled(timezone="europe/nowhere"), "spec.agents[0].schedules[0].timezone"),
        ],
        [scheduled(timezone=name) for name in ("Europe/Berlin", "UTC", "America/Argentina/Ushuaia", "Etc/GMT+5")]
        + [scheduled()],
    ),
    "value-or-source": RuleCases(
        [(variable(value="x", valueFrom={"secretKeyRef": KEY}), "spec.agents[0].env[0].valueFrom")],
        [variable(value=""), variable(valueFrom={"secretKeyRef": KEY}), variable()],
    ),
    "one-source": RuleCases(
        [
            (variable(valueFrom={}), "spec.agents[0].env[0].valueFrom"),
            (variable(valueFrom={"secretKeyRef": KEY, "configMapKeyRef": KEY}), "spec.agents[0].env[0].valueFrom"),
        ],
        [variable(valueFrom={"fieldRef": {"fieldPath": "metadata.name"}})],
    ),
    "one-ref": RuleCases(
        [
            (agent(envFrom=[{}]), "spec.agents[0].envFrom[0]"),
            (agent(envFrom=[{"secretRef": {"name": "s"}, "configMapRef": {"name": "c"}}]), "spec.agents[0].envFrom[0]"),
        ],
        [agent(envFrom=[{"secretRef": {"name": "s"}}, {"configMapRef": {"name": "c"}}])],
    ),
    "restart-policy-is-ours": RuleCases(
        [
            (
                agent(podTemplate={"spec": {"restartPolicy": "Never"}}),
                "spec.agents[0].podTemplate.spec.restartPolicy",
            ),
            (
                resource(console={"podTemplate": {"spec": {"restartPolicy": "Always"}}}),
                "spec.console.podTemplate.spec.restartPolicy",
            ),
        ],
        [agent(podTemplate={"spec": {"priorityClassName": "low", "anything": [{"nested": None}]}})],
    ),
    "our-labels-are-ours": RuleCases(
        [
            (
                agent(podTemplate={"metadata": {"labels": {"agentqueue.dev/queue": "x"}}}),
                'spec.agents[0].podTemplate.metadata.labels["agentqueue.dev/queue"]',
            ),
            (
                managed(podTemplate={"metadata": {"annotations": {"agentqueue.dev/hash": "x"}}}),
                'spec.redis.managed.podTemplate.metadata.annotations["agentqueue.dev/hash"]',
            ),
        ],
        [agent(podTemplate={"metadata": {"labels": {"my-agentqueue.dev/queue": "x", "agentqueue.devs": "y"}}})],
    ),
    "managed-or-external": RuleCases(
        [
            (resource(redis={}), "spec.redis"),
            (resource(redis={"managed": {}, **EXTERNAL["spec"]["redis"]}), "spec.redis"),
        ],
        [resource(), managed(), EXTERNAL],
    ),
    "config-leaves-ours": RuleCases(
        [
            (managed(config={key: "x"}), f"spec.redis.managed.config.{key}")
            for key in (
                *("requirepass", "dir", "maxmemory-policy", "appendfsync", "port", "include"),
                *("min-replicas-to-write", "no-appendfsync-on-rewrite"),
            )
        ],
        [managed(config={"maxmemory": "100mb", "hz": "50"})],
    ),
    "config-keys-are-directives": RuleCases(
        [
            (managed(config={"hz 10\nrequirepass": "x"}), 'spec.redis.managed.config["hz 10\\nrequirepass"]'),
            (managed(config={"DIR": "/"}), "spec.redis.managed.config.DIR"),
        ],
        [managed(config={"latency-monitor-threshold": "100"})],
    ),
    "peer-is-pods-or-addresses": RuleCases(
        [
            (peer(), "spec.networkPolicy.redis.allowFrom[0]"),
            (peer(ipBlock={"cidr": "10.0.0.0/8"}, podSelector={}), "spec.networkPolicy.redis.allowFrom[0]"),
        ],
        [peer(ipBlock={"cidr": "10.0.0.0/8"}), peer(podSelector={}, namespaceSelector={})],
    ),
    "an-eviction-is-allowed": RuleCases(
        [
            (evictable(0), "spec.podDisruptionBudget.workers.maxUnavailable"),
            (evictable("0%"), "spec.podDisruptionBudget.workers.maxUnavailable"),
        ],
        [evictable(1), evictable("1%"), evictable("100%"), resource(podDisruptionBudget={"workers": {}})],
    ),
    "values-go-with-in": RuleCases(
        [
            (
                peer(podSelector={"matchExpressions": [{"key": "k", "operator": operator, **values}]}),
                "spec.networkPolicy.redis.allowFrom[0].podSelector.matchExpressions[0].values",
            )
            for operator, values in (("In", {}), ("NotIn", {"values": []}), ("Exists", {"values": ["x"]}))
        ],
        [
            peer(podSelector={"matchExpressions": [{"key": "k", "operator": operator, **values}]})
            for operator, values in (("In", {"values": ["x"]}), ("DoesNotExist", {}), ("Exists", {"values": []}))
        ],
    ),
}

CHANGES: Mapping[str, ChangeCases] = {
    "managed-stays-managed": ChangeCases(
        [(managed(), EXTERNAL, "spec.redis"), (EXTERNAL, resource(), "spec.redis")],
        [(resource(), managed()), (EXTERNAL, resource(redis={"external": {"urlSecretRef": {"name": "other"}}}))],
    ),
    "storage-only-grows": ChangeCases(
        [
            (storage(size="10Gi"), storage(size="9Gi"), "spec.redis.managed.storage.size"),
            (storage(size="1Gi"), storage(size="1G"), "spec.redis.managed.storage.size"),
            (storage(size="10Gi"), managed(), "spec.redis.managed.storage.size"),
            (storage(size="2Gi"), resource(), "spec.redis.managed.storage.size"),
        ],
        [
            (storage(size="1Gi"), storage(size="1024Mi")),
            (storage(size="1.5Gi"), storage(size="1537Mi")),
            (resource(), storage(size="2Gi")),
            (storage(size="999k"), storage(size="1M")),
        ],
    ),
    "storage-class-stays": ChangeCases(
        [
            (
                storage(storageClassName="a"),
                storage(storageClassName="b"),
                "spec.redis.managed.storage.storageClassName",
            ),
            (storage(storageClassName="a"), storage(), "spec.redis.managed.storage.storageClassName"),
            (storage(), storage(storageClassName="a"), "spec.redis.managed.storage.storageClassName"),
        ],
        [(storage(storageClassName="a"), storage(storageClassName="a", size="2Gi"))],
    ),
}


def many_agents() -> Json:
    """As large as a resource may be: 64 agents, each with all that rules look at."""
    wide = {f"label-{n}.example.com/x": "y" for n in range(64)}
    settings = {
        "scaling": {"minReplicas": 1, "maxReplicas": 2, "fallback": {"behavior": "Static", "replicas": 1}},
        "retry": {"backoff": {"delaySeconds": 1, "maxDelaySeconds": 2}},
        "rollout": {"maxSurge": "10%", "maxUnavailable": "0%"},
        "podTemplate": {"metadata": {"labels": wide, "annotations": wide}, "spec": {"priorityClassName": "low"}},
        "env": [{"name": f"V{n}", "valueFrom": {"secretKeyRef": KEY}} for n in range(64)],
        "schedules": [
            {"name": f"s-{n}", "cron": "0 3 * * *", "job": "j", "timezone": "Europe/Berlin"} for n in range(32)
        ],
    }
    agents = [
        {**settings, "name": f"{'a' * 37}-{n:02}", "handler": "m:a", "queueName": f"{'q' * 100}:{n}"} for n in range(64)
    ]
    return resource(agents=[{**a, "onDeadLetter": {"agent": agents[n - 1]["name"]}} for n, a in enumerate(agents)])


ODD: tuple[Any, ...] = (
    *(None, "", 0, 1, -1, 10**7, 10**12, True, 0.5, [], {}, "x", "X y\n", "ü", "0" * 5000),
    *(["a", "a"], [{}], {"a": None}, {"a": 1}, {"a": "x"}),
)
"""Values of which nearly each is wrong nearly everywhere."""


def mutations(data: Json) -> Iterator[tuple[str, Json]]:
    """The resource with each part of its spec left out, and replaced by each odd value in turn."""
    for path in _paths(data["spec"], ("spec",)):
        yield f"without {path}", _changed(data, path, drop=True)
        yield from ((f"{path} = {value!r:.40}", _changed(data, path, value)) for value in ODD)


def _paths(node: Any, path: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    yield path
    steps = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in steps:
        yield from _paths(value, (*path, key))


def _changed(data: Json, path: tuple[Any, ...], value: Any = None, *, drop: bool = False) -> Json:
    result = copy.deepcopy(data)
    node: Any = result
    for key in path[:-1]:
        node = node[key]
    if drop:
        del node[path[-1]]
    else:
        node[path[-1]] = copy.deepcopy(value)
    return result
