"""Rules of the resource that types and bounds can't express.

Each rule is written twice: in CEL for the API server, and in Python.

The CRD has `cel` and `message`. Offline checks call `find_breaks`, which also locates the problem. Tests in
tests/cluster compare both with the answers of a real API server. Like CEL, `find_breaks` sees plain JSON values after
defaulting.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agentqueue.errors import InvalidName, UsageError
from agentqueue.keys import RESERVED_PARTS, RESERVED_PREFIXES, check_queue
from agentqueue.model.cron_times import check_cron
from agentqueue.spec import agents, pods, redis, resource, schedules
from agentqueue.spec.base import LABEL, Model
from agentqueue.spec.defaults import Fallback, Rollout, Scaling
from agentqueue.spec.problems import Path
from agentqueue.spec.quantity import parse_quantity

Node = Mapping[str, Any]
FindBreaks = Callable[[Node, Node], Iterator[Path]]


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule on every object of the class `on`."""

    name: str
    on: type[Model]
    cel: str
    message: str
    find_breaks: FindBreaks
    """Yields the path of each field that breaks the rule, relative to the object.

    Arguments: the object, and its old version, which only transition rules use.
    """
    holds_for: str = ""
    """CEL for one agent `a`. Only for rules that `cel` repeats for every agent."""

    @property
    def message_cel(self) -> str | None:
        """CEL of a message that names the first agent that breaks the rule. None if `message` is enough.

        A rule on merged values is attached to `spec`, so the API server's error path is `spec`, without the agent. A
        list of all agents is not possible: `filter` and `join` exceed the API server's limit on estimated cost.
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
        """True if the rule restricts changes. A new object always keeps it."""
        return "oldSelf" in self.cel


RULES: list[Rule] = []
"""All rules, in the order in which the reference lists them."""


def rules_on(model: type[Model]) -> list[Rule]:
    """Return the rules on objects of that class and of its base classes."""
    return [rule for rule in RULES if issubclass(model, rule.on)]


def _rule(on: type[Model], cel: str, message: str) -> Callable[[FindBreaks], FindBreaks]:
    """Register the decorated function as the `find_breaks` of a rule that has the function's name."""

    def register(find_breaks: FindBreaks) -> FindBreaks:
        RULES.append(Rule(find_breaks.__name__.strip("_").replace("_", "-"), on, cel, message, find_breaks))
        return find_breaks

    return register


def _agents_rule(holds_for: str, message: str) -> Callable[[FindBreaks], FindBreaks]:
    """Register a rule on the spec for each agent `a`. `find_breaks` yields paths that begin with `agents`, INDEX."""

    def register(find_breaks: FindBreaks) -> FindBreaks:
        _add_agents_rule(find_breaks.__name__.strip("_").replace("_", "-"), holds_for, message, find_breaks)
        return find_breaks

    return register


def _add_agents_rule(name: str, holds_for: str, message: str, find_breaks: FindBreaks) -> None:
    cel = f"self.agents.all(a, {holds_for})"
    RULES.append(Rule(name, resource.AgentQueueSpec, cel, message, find_breaks, holds_for))


@dataclass(frozen=True, slots=True)
class _Setting:
    """A setting of an agent: the agent's own, else that of agentDefaults, else the built-in default."""

    path: str
    default: Any = None

    @property
    def cel(self) -> str:
        """CEL for the value of an agent `a`, inside a rule on the spec."""
        optional = ".?".join(self.path.split("."))
        literal = f"'{self.default}'" if isinstance(self.default, str) else str(self.default)
        return f"a.?{optional}.orValue(self.?agentDefaults.?{optional}.orValue({literal}))"

    def value_for(self, spec: Node, agent: Node) -> Any:
        """Return the value of an agent."""
        own, shared = _get(agent, self.path), _get(spec, f"agentDefaults.{self.path}")
        return own if own is not None else shared if shared is not None else self.default


def _required_with(name: str, switch: _Setting, value: str, path: str, message: str) -> None:
    """Add a rule: an agent whose switch has the value needs the setting at `path`."""

    def find_breaks(node: Node, _: Node) -> Iterator[Path]:
        for place, agent in _agents(node):
            if switch.value_for(node, agent) == value and _Setting(path).value_for(node, agent) is None:
                yield *place, *path.split(".")[:-1]

    given = f"{_given(path)} || {_given(f'agentDefaults.{path}', 'self')}"
    _add_agents_rule(name, f"{switch.cel} != '{value}' || {given}", message, find_breaks)


def _only_with(name: str, switch: _Setting, value: str, paths: Sequence[str], message: str) -> None:
    """Add a rule: an agent has the settings at `paths` only if its switch has the value."""

    def find_breaks(node: Node, _: Node) -> Iterator[Path]:
        for place, agent in _agents(node):
            if switch.value_for(node, agent) != value:
                yield from ((*place, *path.split(".")) for path in paths if _get(agent, path) is not None)

    _add_agents_rule(name, f"{switch.cel} == '{value}' || !({' || '.join(map(_given, paths))})", message, find_breaks)


def _not_above(name: str, lower: _Setting, upper: _Setting, blamed: _Setting, message: str) -> None:
    """Add a rule: one setting is not above another. The problem is located at `blamed`."""

    def find_breaks(node: Node, _: Node) -> Iterator[Path]:
        for place, agent in _agents(node):
            if lower.value_for(node, agent) > upper.value_for(node, agent):
                yield *place, *blamed.path.split(".")

    _add_agents_rule(name, f"{lower.cel} <= {upper.cel}", message, find_breaks)


def _given(path: str, of: str = "a") -> str:
    """Return CEL that is true if the field at `path` is set."""
    return f"{of}.?{'.?'.join(path.split('.'))}.hasValue()"


def _get(node: Any, path: str) -> Any:
    for key in path.split("."):
        node = node.get(key) if node is not None else None
    return node


def _agents(spec: Node) -> Iterator[tuple[Path, Node]]:
    for index, agent in enumerate(spec["agents"]):
        yield ("agents", index), agent


@_rule(
    resource.AgentQueue,
    "size(self.metadata.name) <= 30",
    "metadata.name must have at most 30 characters, because names of other objects contain it: write a shorter name",
)
def _name_is_short(node: Node, _: Node) -> Iterator[Path]:
    if len(node["metadata"]["name"]) > 30:
        yield "metadata", "name"


@_rule(
    resource.AgentQueue,
    f"self.metadata.name.matches('{LABEL}')",
    "metadata.name is part of Service names: use only lowercase letters, digits and dashes, and begin with a letter",
)
def _name_is_label(node: Node, _: Node) -> Iterator[Path]:
    if not re.fullmatch(LABEL, node["metadata"]["name"]):
        yield "metadata", "name"


RESERVED_AGENTS = ("redis", "console")
"""Names of other parts of an AgentQueue, which share one naming scheme with agents."""


@_rule(
    agents.AgentSpec,
    f"!(self.name in {list(RESERVED_AGENTS)})",
    "the names redis and console are reserved for the queue's own Redis and console: choose another agent name",
)
def _agent_name_is_free(node: Node, _: Node) -> Iterator[Path]:
    if node["name"] in RESERVED_AGENTS:
        yield ("name",)


_QUEUE = "(has(self.queueName) ? self.queueName : self.name)"
_PARTS = "|".join(sorted(RESERVED_PARTS))


@_rule(
    agents.AgentSpec,
    f"{_QUEUE} != 'aq' && !{list(RESERVED_PREFIXES)}.exists(p, {_QUEUE}.startsWith(p)) "
    f"&& !{_QUEUE}.matches(':({_PARTS})(:|$)')",
    "the queue's keys in Redis would collide with keys of AgentQueue or arq: write a queueName that does not begin "
    "with aq: or arq:job, and use - instead of : before words such as high, low, dead or done",
)
def _queue_name_is_free(node: Node, _: Node) -> Iterator[Path]:
    try:
        check_queue(node.get("queueName", node["name"]))
    except InvalidName:
        yield ("queueName" if "queueName" in node else "name",)


@_rule(
    agents.AgentDefaults,
    f"!{_given('podTemplate.spec.terminationGracePeriodSeconds', 'self')}",
    "podTemplate must not set terminationGracePeriodSeconds for workers, because the drain depends on it: "
    "write terminationGracePeriodSeconds next to podTemplate instead",
)
def _grace_period_is_the_agents(node: Node, _: Node) -> Iterator[Path]:
    if _get(node, "podTemplate.spec.terminationGracePeriodSeconds") is not None:
        yield "podTemplate", "spec", "terminationGracePeriodSeconds"


_NAME_OF = "(has({0}.queueName) ? {0}.queueName : {0}.name)"


@_agents_rule(
    f"self.agents.exists_one(b, {_NAME_OF.format('b')} == {_NAME_OF.format('a')})",
    "another agent has the same queue: give each agent its own queueName (the default is the agent's name)",
)
def _queues_are_unique(node: Node, _: Node) -> Iterator[Path]:
    seen = set()
    for path, agent in _agents(node):
        name = agent.get("queueName", agent["name"])
        if name in seen:
            yield *path, "queueName" if "queueName" in agent else "name"
        seen.add(name)


@_agents_rule(
    "!has(a.onDeadLetter) || (a.onDeadLetter.agent != a.name && self.agents.exists(b, b.name == a.onDeadLetter.agent))",
    "onDeadLetter.agent must be the name of another agent of this resource",
)
def _dead_letters_go_to_another_agent(node: Node, _: Node) -> Iterator[Path]:
    names = {agent["name"] for agent in node["agents"]}
    for path, agent in _agents(node):
        if "onDeadLetter" in agent and agent["onDeadLetter"]["agent"] not in names - {agent["name"]}:
            yield *path, "onDeadLetter", "agent"


@_rule(
    resource.AgentQueueSpec,
    f"!{_given('agentDefaults.onDeadLetter', 'self')} || "
    "self.agents.exists(b, b.name == self.agentDefaults.onDeadLetter.agent)",
    "agentDefaults.onDeadLetter.agent must be the name of an agent of this resource",
)
def _default_dead_letters_go_to_an_agent(node: Node, _: Node) -> Iterator[Path]:
    target = _get(node, "agentDefaults.onDeadLetter.agent")
    if target is not None and all(agent["name"] != target for agent in node["agents"]):
        yield "agentDefaults", "onDeadLetter", "agent"


@_rule(
    schedules.ScheduleSpec,
    "timestamp('2026-01-01T00:00:00Z').getHours(self.timezone) >= 0",  # an unknown time zone is an error
    "timezone must be the IANA name of a time zone: write a name such as Europe/Berlin, or UTC",
)
def _time_zone_is_known(node: Node, _: Node) -> Iterator[Path]:
    try:
        check_cron("0 0 * * *", node["timezone"])
    except UsageError:
        yield ("timezone",)


_MODE = _Setting("scaling.mode", Scaling().mode.value)
_TUNABLES = tuple(
    f"scaling.{info.alias}"
    for name, info in agents.ScalingSpec.model_fields.items()
    if name not in ("mode", "replicas")
)
_TUNABLE_NAMES = [path.removeprefix("scaling.") for path in _TUNABLES]

_required_with(
    "fixed-has-replicas",
    _MODE,
    "Fixed",
    "scaling.replicas",
    "scaling mode Fixed needs a number of pods: write scaling.replicas, or mode Auto",
)
_only_with(
    "replicas-are-for-fixed",
    _MODE,
    "Fixed",
    ["scaling.replicas"],
    "scaling.replicas is for mode Fixed only: write mode: Fixed, or minReplicas and maxReplicas instead of replicas",
)
_only_with(
    "tunables-are-for-auto",
    _MODE,
    "Auto",
    _TUNABLES,
    f"{', '.join(_TUNABLE_NAMES[:-1])} and {_TUNABLE_NAMES[-1]} are for scaling mode Auto only: "
    "remove them from this agent, or write mode: Auto",
)

_MIN = _Setting("scaling.minReplicas", Scaling().min_replicas)
_MAX = _Setting("scaling.maxReplicas", Scaling().max_replicas)

_not_above(
    "min-is-not-above-max",
    _MIN,
    _MAX,
    _MIN,
    f"scaling.minReplicas must not be above maxReplicas (default {_MAX.default}): raise maxReplicas",
)

_BEHAVIOR = _Setting("scaling.fallback.behavior", Fallback().behavior.value)

_required_with(
    "static-fallback-has-replicas",
    _BEHAVIOR,
    "Static",
    "scaling.fallback.replicas",
    "scaling.fallback with behavior Static needs a number of pods: write fallback.replicas",
)
_only_with(
    "fallback-replicas-are-for-static",
    _BEHAVIOR,
    "Static",
    ["scaling.fallback.replicas"],
    "scaling.fallback.replicas is for behavior Static only: write behavior: Static, or remove it",
)

_DELAY = _Setting("retry.backoff.delaySeconds", agents.BackoffSpec.filled().delay_seconds)
_MAX_DELAY = _Setting("retry.backoff.maxDelaySeconds", agents.WEEK_S)
"""If no maximum is given, `resolve` uses at least the delay. So the default here is the largest allowed value."""

_not_above(
    "delay-is-not-above-its-cap",
    _DELAY,
    _MAX_DELAY,
    _MAX_DELAY,
    f"retry.backoff.maxDelaySeconds must not be below delaySeconds (default {_DELAY.default}): raise it",
)

_SURGE = _Setting("rollout.maxSurge", Rollout().max_surge)
_UNAVAILABLE = _Setting("rollout.maxUnavailable", Rollout().max_unavailable)


@_agents_rule(
    "!(" + " && ".join(f"({setting.cel} == 0 || {setting.cel} == '0%')" for setting in (_SURGE, _UNAVAILABLE)) + ")",
    "rollout.maxSurge and maxUnavailable must not both be 0 (maxUnavailable is 0 by default): write 1 for one of them",
)
def _rollout_can_move(node: Node, _: Node) -> Iterator[Path]:
    for path, agent in _agents(node):
        if {_SURGE.value_for(node, agent), _UNAVAILABLE.value_for(node, agent)} <= {0, "0%"}:
            yield *path, "rollout"


@_rule(
    pods.EnvVar,
    "!(has(self.value) && has(self.valueFrom))",
    "a variable has either a value or a valueFrom: remove one of them",
)
def _value_or_source(node: Node, _: Node) -> Iterator[Path]:
    if "value" in node and "valueFrom" in node:
        yield ("valueFrom",)


_SOURCES = tuple(str(info.alias) for info in pods.EnvSource.model_fields.values())


@_rule(
    pods.EnvSource,
    f"[{', '.join(f'has(self.{key})' for key in _SOURCES)}].exists_one(x, x)",
    f"write exactly one of {', '.join(_SOURCES)}",
)
def _one_source(node: Node, _: Node) -> Iterator[Path]:
    if sum(key in node for key in _SOURCES) != 1:
        yield ()


@_rule(pods.EnvFrom, "has(self.secretRef) != has(self.configMapRef)", "write exactly one of secretRef and configMapRef")
def _one_ref(node: Node, _: Node) -> Iterator[Path]:
    if ("secretRef" in node) == ("configMapRef" in node):
        yield ()


@_rule(pods.PodSpec, "!has(self.restartPolicy)", "podTemplate must not set restartPolicy: remove it")
def _restart_policy_is_ours(node: Node, _: Node) -> Iterator[Path]:
    if "restartPolicy" in node:
        yield ("restartPolicy",)


PREFIX = f"{resource.GROUP}/"
"""Prefix of the operator's labels and annotations."""


@_rule(
    pods.PodMetadata,
    f"(!has(self.labels) || self.labels.all(k, !k.startsWith('{PREFIX}'))) && "
    f"(!has(self.annotations) || self.annotations.all(k, !k.startsWith('{PREFIX}')))",
    f"labels and annotations that begin with {PREFIX} are reserved for the operator: use another prefix",
)
def _our_labels_are_ours(node: Node, _: Node) -> Iterator[Path]:
    for kind in ("labels", "annotations"):
        yield from ((kind, key) for key in node.get(kind, {}) if key.startswith(PREFIX))


@_rule(
    redis.Redis,
    "has(self.managed) != has(self.external)",
    "write exactly one of managed and external under redis",
)
def _managed_or_external(node: Node, _: Node) -> Iterator[Path]:
    if ("managed" in node) == ("external" in node):
        yield ()


@_rule(
    redis.Redis,
    "has(self.managed) == has(oldSelf.managed)",
    "redis can't change between managed and external, because jobs would not move: create another AgentQueue",
)
def _managed_stays_managed(node: Node, old: Node) -> Iterator[Path]:
    if ("managed" in node) != ("managed" in old):
        yield ()


@_rule(
    redis.Storage,
    "quantity(self.size).compareTo(quantity(oldSelf.size)) >= 0",
    "storage.size can only grow: write the old size or a larger one",
)
def _storage_only_grows(node: Node, old: Node) -> Iterator[Path]:
    if (parse_quantity(node["size"]) or 0) < (parse_quantity(old["size"]) or 0):
        yield ("size",)


@_rule(
    redis.Storage,
    "has(self.storageClassName) == has(oldSelf.storageClassName) && "
    "(!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName)",
    "storageClassName can't change, because a volume can't move: write the old one, or create another AgentQueue",
)
def _storage_class_stays(node: Node, old: Node) -> Iterator[Path]:
    if node.get("storageClassName", "") != old.get("storageClassName", ""):
        yield ("storageClassName",)


OWN_DIRECTIVES = (
    *("requirepass", "masterauth", "user", "aclfile", "protected-mode", "rename-command"),
    *("dir", "dbfilename", "appenddirname", "appendfilename", "appendonly", "appendfsync", "maxmemory-policy"),
    *("tls-port", "tls-cert-file", "tls-key-file", "tls-ca-cert-file", "tls-auth-clients"),
    *("port", "bind", "unixsocket", "daemonize", "supervised", "pidfile", "logfile"),
    *("replicaof", "slaveof", "cluster-enabled", "include", "loadmodule"),
    *("min-replicas-to-write", "min-slaves-to-write", "no-appendfsync-on-rewrite"),
)
"""Directives of redis.conf that users must not set, because durability, access or networking depend on them.

With min-replicas-to-write, a server without replicas never accepts a job.
"""


@_rule(
    redis.ManagedRedis,
    f"!has(self.config) || self.config.all(k, !(k in {list(OWN_DIRECTIVES)}))",
    "config must not set directives that control durability, access or networking, such as requirepass, dir, "
    "maxmemory-policy, appendfsync or port: write auth, tls or persistence.appendfsync instead, or remove it",
)
def _config_leaves_ours(node: Node, _: Node) -> Iterator[Path]:
    yield from (("config", key) for key in node.get("config", {}) if key in OWN_DIRECTIVES)


DIRECTIVE = "^[a-z][-a-z0-9]*$"
"""Pattern of a redis.conf directive."""


@_rule(
    redis.ManagedRedis,
    f"!has(self.config) || self.config.all(k, k.matches('{DIRECTIVE}'))",
    "config's keys are names of redis.conf directives: use lowercase letters, digits and dashes",
)
def _config_keys_are_directives(node: Node, _: Node) -> Iterator[Path]:
    yield from (("config", key) for key in node.get("config", {}) if not re.fullmatch(DIRECTIVE, key))


@_rule(
    resource.NetworkPeer,
    "has(self.ipBlock) != (has(self.podSelector) || has(self.namespaceSelector))",
    "write either ipBlock, or podSelector and namespaceSelector (one or both)",
)
def _peer_is_pods_or_addresses(node: Node, _: Node) -> Iterator[Path]:
    if ("ipBlock" in node) == ("podSelector" in node or "namespaceSelector" in node):
        yield ()


@_rule(
    resource.LabelExpression,
    "(self.operator in ['In', 'NotIn']) == (has(self.values) && size(self.values) > 0)",
    "write values with the operators In and NotIn, and only with them",
)
def _values_go_with_in(node: Node, _: Node) -> Iterator[Path]:
    if (node["operator"] in ("In", "NotIn")) != bool(node.get("values")):
        yield ("values",)


@_rule(
    resource.WorkerBudget,
    "self.maxUnavailable != 0 && self.maxUnavailable != '0%'",
    "maxUnavailable 0 allows no eviction, so a node drain would never end: write 1 or more, or a percentage of at "
    "least 1% (rounded up to a whole worker)",
)
def _an_eviction_is_allowed(node: Node, _: Node) -> Iterator[Path]:
    if node["maxUnavailable"] in (0, "0%"):
        yield ("maxUnavailable",)
