"""The AgentQueue resource: models, defaults, rules, YAML files with line numbers, and the CRD.

Import it only where a resource is read: pydantic and these models take a few tenths of a second to load.
"""

from agentqueue.spec.check import check
from agentqueue.spec.defaults import (
    Ageing,
    BackoffSettings,
    BackoffType,
    DeadLetterSettings,
    Fallback,
    FallbackBehavior,
    RateLimit,
    Retention,
    RetrySettings,
    Rollout,
    Scaling,
    ScalingMode,
)
from agentqueue.spec.load import Loaded, load, load_file
from agentqueue.spec.pods import CodeFrom, EnvFrom, EnvVar, PodTemplate, Resources, SecretKey
from agentqueue.spec.problems import InvalidResource, Problem
from agentqueue.spec.redis import Appendfsync, ExternalRedis, ManagedRedis
from agentqueue.spec.resolve import ResolvedAgent, ResolvedQueue, resolve
from agentqueue.spec.resource import API_VERSION, GROUP, KIND, PLURAL, VERSION, AgentQueue
from agentqueue.spec.status import (
    AgentQueueStatus,
    AgentStatus,
    Condition,
    ConditionStatus,
    ConditionType,
    ConsoleStatus,
    LastScale,
    RedisStatus,
)

__all__ = [
    "API_VERSION",
    "GROUP",
    "KIND",
    "PLURAL",
    "VERSION",
    "Ageing",
    "AgentQueue",
    "AgentQueueStatus",
    "AgentStatus",
    "Appendfsync",
    "BackoffSettings",
    "BackoffType",
    "CodeFrom",
    "Condition",
    "ConditionStatus",
    "ConditionType",
    "ConsoleStatus",
    "DeadLetterSettings",
    "EnvFrom",
    "EnvVar",
    "ExternalRedis",
    "Fallback",
    "FallbackBehavior",
    "InvalidResource",
    "LastScale",
    "Loaded",
    "ManagedRedis",
    "PodTemplate",
    "Problem",
    "RateLimit",
    "RedisStatus",
    "ResolvedAgent",
    "ResolvedQueue",
    "Resources",
    "Retention",
    "RetrySettings",
    "Rollout",
    "Scaling",
    "ScalingMode",
    "SecretKey",
    "check",
    "load",
    "load_file",
    "resolve",
]
