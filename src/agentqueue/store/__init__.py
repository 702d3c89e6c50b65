"""The only package that talks to Redis: typed faces of the scripts, one round trip each."""

from agentqueue.model.new_job import NewJob
from agentqueue.model.outcomes import (
    MAX_STEP,
    MAX_STEP_BYTES,
    Again,
    Bury,
    Cancel,
    Claimed,
    Done,
    HandBack,
    Outcome,
    outcome_bytes,
)
from agentqueue.store.connection import BehindSentinel, close_sentinels, leaner, open_client
from agentqueue.store.engine import (
    HOUSEKEEPING_S,
    KEEP_FOREVER,
    Engine,
    EngineSettings,
    RenewReply,
    StepReply,
    keep_house,
)
from agentqueue.store.jobs import Heartbeat, QueueSnapshot, Snapshot, Store, StoredDeadLetter, Unread
from agentqueue.store.options import (
    Sentinels,
    ServerOptions,
    Tls,
    connection_environment,
    parse_nodes,
    resolve_url,
    server_options,
)
from agentqueue.store.server import Server

__all__ = [
    "HOUSEKEEPING_S",
    "KEEP_FOREVER",
    "MAX_STEP",
    "MAX_STEP_BYTES",
    "Again",
    "BehindSentinel",
    "Bury",
    "Cancel",
    "Claimed",
    "Done",
    "Engine",
    "EngineSettings",
    "HandBack",
    "Heartbeat",
    "NewJob",
    "Outcome",
    "QueueSnapshot",
    "RenewReply",
    "Sentinels",
    "Server",
    "ServerOptions",
    "Snapshot",
    "StepReply",
    "Store",
    "StoredDeadLetter",
    "Tls",
    "Unread",
    "close_sentinels",
    "connection_environment",
    "keep_house",
    "leaner",
    "open_client",
    "outcome_bytes",
    "parse_nodes",
    "resolve_url",
    "server_options",
]
