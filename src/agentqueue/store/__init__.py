"""Access to Redis: typed methods for the Lua scripts, each one round trip. No other package talks to Redis."""

from agentqueue.model.new_job import NewJob
from agentqueue.model.outcomes import (
    KEEP_FOREVER,
    MAX_BYTES_PER_CALL,
    MAX_JOBS_PER_CALL,
    Cancelled,
    Claimed,
    Completed,
    DeadLettered,
    Outcome,
    Released,
    Rescheduled,
    Suspended,
    outcome_bytes,
)
from agentqueue.store.connection import SentinelRedis, close_sentinels, open_client, use_fast_commands
from agentqueue.store.engine import (
    HOUSEKEEPING_INTERVAL_S,
    Engine,
    EngineSettings,
    FinishAndClaimReply,
    HousekeepingReply,
    RenewReply,
    run_housekeeping,
)
from agentqueue.store.jobs import Heartbeat, QueueSnapshot, Snapshot, Store, StoredDeadLetter, Unreadable
from agentqueue.store.options import (
    Sentinels,
    ServerOptions,
    Tls,
    connection_environment,
    parse_nodes,
    resolve_url,
    server_options,
)
from agentqueue.store.registrations import CodeSet, Registration, Registrations
from agentqueue.store.schedules import PutReply, Schedules, ScheduleState, TickRun
from agentqueue.store.server import Server

__all__ = [
    "HOUSEKEEPING_INTERVAL_S",
    "KEEP_FOREVER",
    "MAX_BYTES_PER_CALL",
    "MAX_JOBS_PER_CALL",
    "Cancelled",
    "Claimed",
    "CodeSet",
    "Completed",
    "DeadLettered",
    "Engine",
    "EngineSettings",
    "FinishAndClaimReply",
    "Heartbeat",
    "HousekeepingReply",
    "NewJob",
    "Outcome",
    "PutReply",
    "QueueSnapshot",
    "Registration",
    "Registrations",
    "Released",
    "RenewReply",
    "Rescheduled",
    "ScheduleState",
    "Schedules",
    "SentinelRedis",
    "Sentinels",
    "Server",
    "ServerOptions",
    "Snapshot",
    "Store",
    "StoredDeadLetter",
    "Suspended",
    "TickRun",
    "Tls",
    "Unreadable",
    "close_sentinels",
    "connection_environment",
    "open_client",
    "outcome_bytes",
    "parse_nodes",
    "resolve_url",
    "run_housekeeping",
    "server_options",
    "use_fast_commands",
]
