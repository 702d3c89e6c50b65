"""The rules that types and bounds can't say: one object each, with its CEL for the API server and its Python twin.

The CRD carries `cel` and `message`; offline checks ask `find`, which also tells where. tests/cluster holds the two
together with a real API server's answers. A twin sees plain JSON values after the schema's defaults, as CEL does.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from agentqueue.errors import InvalidName
from agentqueue.keys import RESERVED_PARTS, RESERVED_PREFIXES, check_queue
from agentqueue.spec import agents, pods, redis, resource
from agentqueue.spec.base import LABEL, Model
from agentqueue.spec.defaults import Fallback, Rollout, Scaling
from agentqueue.spec.problems import Path

Node = Mapping[str, Any]
Find = Callable[[Node, Node], Iterator[Path]]


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule on every object of the class `on`; broken where `find` yields a path below that object."""

    on: type[Model]
    cel: str
    message: str
    find: Find
    """Takes the object, and what it was before: only transition rules look at that."""
    holds_for: str = ""
    """CEL that holds for an agent `a` that keeps the rule; set where `cel` asks it of all agents."""

    @property
    def name(self) -> str:
        """The twin's name, in words."""
        return self.find.__name__.strip("_").replace("_", "-")

    @property
    def message_cel(self) -> str | None:
        """CEL for a message that names the first agent that breaks the rule; None where `message` says all.

        A rule on merged values stands at `spec`, so the API server's own path does not name an agent. All agents can't
        be named: the API server's cost estimate of `filter` and `join` is beyond its limit by far.
        """
        if not self.holds_for:
            return None
        return f"'agent ' + self.agents.map(a, !({self.holds_for}), a.name)[0] + {json.dumps(f': {self.message}')}"

    def message_at(self, node: Node, path: Path) -> str:
        """Return the message for a break at `path` below the object `node`."""
        if not self.holds_for:
            return self.message
        _, index, *_ = path
        return f"agent {node['agents'][index]['name']}: {self.message}"

    @property
    def transition(self) -> bool:
        """True if the rule is about a change, so that it holds for new objects."""
        return "oldSelf" in self.cel


RULES: list[Rule] = []


def rules_on(model: type[Model]) -> list[Rule]:
    """The rules on objects of that class, those of its bases included."""
    return [rule for rule in RULES if issubclass(model, rule.on)]


def _rule(on: type[Model], cel: str, message: str) -> Callable[[Find], Find]:
    def register(find: Find) -> Find:
        RULES.append(Rule(on, cel, message, find))
        return find

    return register


def _agents_rule(holds_for: str, message: str) -> Callable[[Find], Find]:
    """A rule on the spec that must hold for each agent `a`; `find` yields paths that begin with `agents`, INDEX."""

    def register(find: Find) -> Find:
        cel = f"self.agents.all(a, {holds_for})"
        RULES.append(Rule(resource.AgentQueueSpec, cel, message, find, holds_for))
        return find

    return register


# Merged values: the agent's, else that of agentDefaults, else the built-in default.


def _cel(path: str, default: str | int) -> str:
    """CEL for an agent `a`'s merged value, inside a rule on the spec."""
    optional = ".?".join(path.split("."))
    literal = f"'{default}'" if isinstance(default, str) else str(default)
    return f"a.?{optional}.orValue(self.?agentDefaults.?{optional}.orValue({literal}))"


def _given(path: str, of: str = "a") -> str:
    return f"{of}.?{'.?'.join(path.split('.'))}.hasValue()"


def _get(node: Any, path: str) -> Any:
    for key in path.split("."):
        node = node.get(key) if node is not None else None
    return node


def _merged(spec: Node, agent: Node, path: str, default: Any = None) -> Any:
    own, shared = _get(agent, path), _get(spec, f"agentDefaults.{path}")
    return own if own is not None else shared if shared is not None else default


def _agents(spec: Node) -> Iterator[tuple[Path, Node]]:
    for index, agent in enumerate(spec["agents"]):
        yield ("agents", index), agent


# The resource


@_rule(
    resource.AgentQueue,
    "size(self.metadata.name) <= 30",
    "metadata.name may have at most 30 characters, since the names of its objects are made from it: "
    "write a shorter name",
)
def _name_is_short(self: Node, _: Node) -> Iterator[Path]:
    if len(self["metadata"]["name"]) > 30:
        yield "metadata", "name"


@_rule(
    resource.AgentQueue,
    f"self.metadata.name.matches('{LABEL}')",
    "metadata.name is part of Service names: write small letters, digits and dashes only, beginning with a letter",
)
def _name_is_label(self: Node, _: Node) -> Iterator[Path]:
    if not re.fullmatch(LABEL, self["metadata"]["name"]):
        yield "metadata", "name"


# Agents, one by one

RESERVED_AGENTS = ("redis", "console")


@_rule(
    agents.AgentSpec,
    f"!(self.name in {list(RESERVED_AGENTS)})",
    "the names redis and console are taken by the queue's own Redis and console: write another name for the agent",
)
def _agent_name_is_free(self: Node, _: Node) -> Iterator[Path]:
    if self["name"] in RESERVED_AGENTS:
        yield ("name",)


_QUEUE = "(has(self.queueName) ? self.queueName : self.name)"
_PARTS = "|".join(sorted(RESERVED_PARTS))


@_rule(
    agents.AgentSpec,
    f"{_QUEUE} != 'aq' && !{list(RESERVED_PREFIXES)}.exists(p, {_QUEUE}.startsWith(p)) "
    f"&& !{_QUEUE}.matches(':({_PARTS})(:|$)')",
    "this queue's keys in Redis would meet AgentQueue's or arq's own: write a queueName that does not begin with aq: "
    "or arq:job and the like, and has - instead of : before words such as high, low, dead or done",
)
def _queue_name_is_free(self: Node, _: Node) -> Iterator[Path]:
    try:
        check_queue(self.get("queueName", self["name"]))
    except InvalidName:
        yield ("queueName" if "queueName" in self else "name",)


@_rule(
    agents.AgentDefaults,
    f"!{_given('podTemplate.spec.terminationGracePeriodSeconds', 'self')}",
    "podTemplate may not set terminationGracePeriodSeconds for workers, since draining goes by it: "
    "write terminationGracePeriodSeconds beside podTemplate instead",
)
def _grace_period_is_the_agents(self: Node, _: Node) -> Iterator[Path]:
    if _get(self, "podTemplate.spec.terminationGracePeriodSeconds") is not None:
        yield "podTemplate", "spec", "terminationGracePeriodSeconds"


# Agents together, with agentDefaults merged in

_NAME_OF = "(has({0}.queueName) ? {0}.queueName : {0}.name)"


@_agents_rule(
    f"self.agents.exists_one(b, {_NAME_OF.format('b')} == {_NAME_OF.format('a')})",
    "another agent has the same queue: write a queueName of its own for each (an agent without one has its name)",
)
def _queues_are_unique(self: Node, _: Node) -> Iterator[Path]:
    seen = set()
    for path, agent in _agents(self):
        name = agent.get("queueName", agent["name"])
        if name in seen:
            yield *path, "queueName" if "queueName" in agent else "name"
        seen.add(name)


@_agents_rule(
    "!has(a.onDeadLetter) || (a.onDeadLetter.agent != a.name && self.agents.exists(b, b.name == a.onDeadLetter.agent))",
    "onDeadLetter.agent must be the name of another agent of this resource",
)
def _dead_letters_go_to_another_agent(self: Node, _: Node) -> Iterator[Path]:
    names = {agent["name"] for agent in self["agents"]}
    for path, agent in _agents(self):
        if "onDeadLetter" in agent and agent["onDeadLetter"]["agent"] not in names - {agent["name"]}:
            yield *path, "onDeadLetter", "agent"


@_rule(
    resource.AgentQueueSpec,
    f"!{_given('agentDefaults.onDeadLetter', 'self')} || "
    "self.agents.exists(b, b.name == self.agentDefaults.onDeadLetter.agent)",
    "agentDefaults.onDeadLetter.agent must be the name of an agent of this resource",
)
def _default_dead_letters_go_to_an_agent(self: Node, _: Node) -> Iterator[Path]:
    target = _get(self, "agentDefaults.onDeadLetter.agent")
    if target is not None and all(agent["name"] != target for agent in self["agents"]):
        yield "agentDefaults", "onDeadLetter", "agent"


_MODE = _cel("scaling.mode", Scaling().mode.value)


def _mode(spec: Node, agent: Node) -> str:
    return str(_merged(spec, agent, "scaling.mode", Scaling().mode.value))


@_agents_rule(
    f"{_MODE} != 'Fixed' || {_given('scaling.replicas')} || {_given('agentDefaults.scaling.replicas', 'self')}",
    "scaling mode Fixed needs a number of pods: write scaling.replicas, or mode Auto",
)
def _fixed_has_replicas(self: Node, _: Node) -> Iterator[Path]:
    for path, agent in _agents(self):
        if _mode(self, agent) == "Fixed" and _merged(self, agent, "scaling.replicas") is None:
            yield *path, "scaling"


@_agents_rule(
    f"!{_given('scaling.replicas')} || {_MODE} == 'Fixed'",
    "scaling.replicas is for mode Fixed only: write mode: Fixed, or minReplicas and maxReplicas instead of replicas",
)
def _replicas_are_for_fixed(self: Node, _: Node) -> Iterator[Path]:
    for path, agent in _agents(self):
        if _get(agent, "scaling.replicas") is not None and _mode(self, agent) != "Fixed":
            yield *path, "scaling", "replicas"


TUNABLES = tuple(
    key for key in (info.alias for info in agents.ScalingSpec.model_fields.values()) if key not in ("mode", "replicas")
)


@_agents_rule(
    f"{_MODE} == 'Auto' || !({' || '.join(_given(f'scaling.{key}') for key in TUNABLES)})",
    f"{', '.join(map(str, TUNABLES[:-1]))} and {TUNABLES[-1]} are for scaling mode Auto only: "
    "take them out of this agent, or write mode: Auto",
)
def _tunables_are_for_auto(self: Node, _: Node) -> Iterator[Path]:
    for path, agent in _agents(self):
        if _mode(self, agent) != "Auto":
            yield from ((*path, "scaling", str(key)) for key in TUNABLES if _get(agent, f"scaling.{key}") is not None)


_MIN, _MAX = Scaling().min_replicas, Scaling().max_replicas


@_agents_rule(
    f"{_cel('scaling.minReplicas', _MIN)} <= {_cel('scaling.maxReplicas', _MAX)}",
    f"scaling.minReplicas may not be above maxReplicas (which is {_MAX} unless set): raise maxReplicas",
)
def _min_is_not_above_max(self: Node, _: Node) -> Iterator[Path]:
    for path, agent in _agents(self):
        lowest, highest = (_merged(self, agent, f"scaling.{key}Replicas") for key in ("min", "max"))
        if (_MIN if lowest is None else lowest) > (_MAX if highest is None else highest):
            yield *path, "scaling", "minReplicas"


_BEHAVIOR = _cel("scaling.fallback.behavior", Fallback().behavior.value)


def _behavior(spec: Node, agent: Node) -> str:
    return str(_merged(spec, agent, "scaling.fallback.behavior", Fallback().behavior.value))


@_agents_rule(
    f"{_BEHAVIOR} != 'Static' || {_given('scaling.fallback.replicas')} || "
    f"{_given('agentDefaults.scaling.fallback.replicas', 'self')}",
    "scaling.fallback with behavior Static needs a number of pods: write fallback.replicas",
)
def _static_fallback_has_replicas(self: Node, _: Node) -> Iterator[Path]:
    for path, agent in _agents(self):
        if _behavior(self, agent) == "Static" and _merged(self, agent, "scaling.fallback.replicas") is None:
            yield *path, "scaling", "fallback"


@_agents_rule(
    f"!{_given('scaling.fallback.replicas')} || {_BEHAVIOR} == 'Static'",
    "scaling.fallback.replicas is for behavior Static only: write behavior: Static, or take it out",
)
def _fallback_replicas_are_for_static(self: Node, _: Node) -> Iterator[Path]:
    for path, agent in _agents(self):
        if _get(agent, "scaling.fallback.replicas") is not None and _behavior(self, agent) != "Static":
            yield *path, "scaling", "fallback", "replicas"


_DELAY = agents.BackoffSpec.filled().delay_seconds


@_agents_rule(
    f"{_cel('retry.backoff.delaySeconds', _DELAY)} <= {_cel('retry.backoff.maxDelaySeconds', agents.WEEK_S)}",
    f"retry.backoff.maxDelaySeconds may not be below delaySeconds (which is {_DELAY} unless set): raise it",
)
def _delay_is_not_above_its_cap(self: Node, _: Node) -> Iterator[Path]:
    for path, agent in _agents(self):
        delay = _merged(self, agent, "retry.backoff.delaySeconds", _DELAY)
        if delay > _merged(self, agent, "retry.backoff.maxDelaySeconds", agents.WEEK_S):
            yield *path, "retry", "backoff", "maxDelaySeconds"


def _cel_none(key: str, default: str | int) -> str:
    value = _cel(f"rollout.{key}", default)
    return f"({value} == 0 || {value} == '0%')"


@_agents_rule(
    f"!({_cel_none('maxSurge', Rollout().max_surge)} && {_cel_none('maxUnavailable', Rollout().max_unavailable)})",
    "rollout.maxSurge and maxUnavailable can't both be 0 (maxUnavailable is 0 unless set): write 1 for one of them",
)
def _rollout_can_move(self: Node, _: Node) -> Iterator[Path]:
    none = (0, "0%")
    for path, agent in _agents(self):
        surge = _merged(self, agent, "rollout.maxSurge", Rollout().max_surge)
        if surge in none and _merged(self, agent, "rollout.maxUnavailable", Rollout().max_unavailable) in none:
            yield *path, "rollout"


# Pods


@_rule(
    pods.EnvVar,
    "!(has(self.value) && has(self.valueFrom))",
    "a variable has either a value or a valueFrom: take one of them out",
)
def _value_or_source(self: Node, _: Node) -> Iterator[Path]:
    if "value" in self and "valueFrom" in self:
        yield ("valueFrom",)


_SOURCES = tuple(str(info.alias) for info in pods.EnvSource.model_fields.values())


@_rule(
    pods.EnvSource,
    f"[{', '.join(f'has(self.{key})' for key in _SOURCES)}].exists_one(x, x)",
    f"write exactly one of {', '.join(_SOURCES)}",
)
def _one_source(self: Node, _: Node) -> Iterator[Path]:
    if sum(key in self for key in _SOURCES) != 1:
        yield ()


@_rule(pods.EnvFrom, "has(self.secretRef) != has(self.configMapRef)", "write exactly one of secretRef and configMapRef")
def _one_ref(self: Node, _: Node) -> Iterator[Path]:
    if ("secretRef" in self) == ("configMapRef" in self):
        yield ()


@_rule(pods.PodSpec, "!has(self.restartPolicy)", "podTemplate may not set restartPolicy: take it out, it is Always")
def _restart_policy_is_ours(self: Node, _: Node) -> Iterator[Path]:
    if "restartPolicy" in self:
        yield ("restartPolicy",)


PREFIX = f"{resource.GROUP}/"


@_rule(
    pods.PodMetadata,
    f"(!has(self.labels) || self.labels.all(k, !k.startsWith('{PREFIX}'))) && "
    f"(!has(self.annotations) || self.annotations.all(k, !k.startsWith('{PREFIX}')))",
    f"labels and annotations that begin with {PREFIX} are the operator's own: write another prefix",
)
def _our_labels_are_ours(self: Node, _: Node) -> Iterator[Path]:
    for kind in ("labels", "annotations"):
        yield from ((kind, key) for key in self.get(kind, {}) if key.startswith(PREFIX))


# Redis


@_rule(
    redis.Redis,
    "has(self.managed) != has(self.external)",
    "write exactly one of managed and external under redis",
)
def _managed_or_external(self: Node, _: Node) -> Iterator[Path]:
    if ("managed" in self) == ("external" in self):
        yield ()


@_rule(
    redis.Redis,
    "has(self.managed) == has(oldSelf.managed)",
    "redis can't change between managed and external, since the jobs would stay behind: make another AgentQueue",
)
def _managed_stays_managed(self: Node, old: Node) -> Iterator[Path]:
    if ("managed" in self) != ("managed" in old):
        yield ()


BINARY = {unit: 1024**power for power, unit in enumerate(("", "Ki", "Mi", "Gi", "Ti", "Pi"))}
DECIMAL = {unit: 1000**power for power, unit in enumerate(("", "k", "M", "G", "T", "P"))}


def size_bytes(size: str) -> Decimal:
    """Bytes of a size such as 10Gi (the pattern SIZE)."""
    number = size.rstrip("KMGTPki")
    unit: int = (BINARY | DECIMAL)[size[len(number) :]]
    return Decimal(number) * unit


@_rule(
    redis.Storage,
    "quantity(self.size).compareTo(quantity(oldSelf.size)) >= 0",
    "storage.size can only grow: write the old size or a larger one",
)
def _storage_only_grows(self: Node, old: Node) -> Iterator[Path]:
    if size_bytes(self["size"]) < size_bytes(old["size"]):
        yield ("size",)


@_rule(
    redis.Storage,
    "has(self.storageClassName) == has(oldSelf.storageClassName) && "
    "(!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName)",
    "storageClassName can't change, since a volume can't move: write the old one, or make another AgentQueue",
)
def _storage_class_stays(self: Node, old: Node) -> Iterator[Path]:
    if self.get("storageClassName", "") != old.get("storageClassName", ""):
        yield ("storageClassName",)


OWN_DIRECTIVES = (
    *("requirepass", "masterauth", "user", "aclfile", "protected-mode", "rename-command"),
    *("dir", "dbfilename", "appenddirname", "appendfilename", "appendonly", "appendfsync", "maxmemory-policy"),
    *("tls-port", "tls-cert-file", "tls-key-file", "tls-ca-cert-file", "tls-auth-clients"),
    *("port", "bind", "unixsocket", "daemonize", "supervised", "pidfile", "logfile"),
    *("replicaof", "slaveof", "cluster-enabled", "include", "loadmodule"),
    *("min-replicas-to-write", "min-slaves-to-write", "no-appendfsync-on-rewrite"),
)
"""What durability, access and the operator's own wiring rest on.

A server without replicas that waits for one (min-replicas-to-write) never accepts a job.
"""


@_rule(
    redis.ManagedRedis,
    f"!has(self.config) || self.config.all(k, !(k in {list(OWN_DIRECTIVES)}))",
    "config may not set what durability, access and the operator's wiring rest on, such as requirepass, dir, "
    "maxmemory-policy, appendfsync or port: write auth, tls or persistence.appendfsync instead, or take it out",
)
def _config_leaves_ours(self: Node, _: Node) -> Iterator[Path]:
    yield from (("config", key) for key in self.get("config", {}) if key in OWN_DIRECTIVES)


DIRECTIVE = "^[a-z][-a-z0-9]*$"


@_rule(
    redis.ManagedRedis,
    f"!has(self.config) || self.config.all(k, k.matches('{DIRECTIVE}'))",
    "config's keys are names of redis.conf directives: write small letters, digits and dashes",
)
def _config_keys_are_directives(self: Node, _: Node) -> Iterator[Path]:
    yield from (("config", key) for key in self.get("config", {}) if not re.fullmatch(DIRECTIVE, key))


# The network


@_rule(
    resource.NetworkPeer,
    "has(self.ipBlock) != (has(self.podSelector) || has(self.namespaceSelector))",
    "write either ipBlock, or podSelector and namespaceSelector (one or both)",
)
def _peer_is_pods_or_addresses(self: Node, _: Node) -> Iterator[Path]:
    if ("ipBlock" in self) == ("podSelector" in self or "namespaceSelector" in self):
        yield ()


@_rule(
    resource.LabelExpression,
    "(self.operator in ['In', 'NotIn']) == (has(self.values) && size(self.values) > 0)",
    "write values with the operators In and NotIn, and only with them",
)
def _values_go_with_in(self: Node, _: Node) -> Iterator[Path]:
    if (self["operator"] in ("In", "NotIn")) != bool(self.get("values")):
        yield ("values",)


# Disruptions


@_rule(
    resource.WorkerBudget,
    "self.maxUnavailable != 0 && self.maxUnavailable != '0%'",
    "maxUnavailable of 0 lets no worker be evicted, so a node drain would never end: write 1 or more, or a percentage "
    "of at least 1% (it is rounded up to a whole worker)",
)
def _an_eviction_is_allowed(self: Node, _: Node) -> Iterator[Path]:
    if self["maxUnavailable"] in (0, "0%"):
        yield ("maxUnavailable",)
