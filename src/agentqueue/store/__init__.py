"""The only package that talks to Redis: typed faces of the scripts, one round trip each."""

from agentqueue.store.engine import (
    KEEP_FOREVER,
    MAX_STEP,
    MAX_STEP_BYTES,
    Again,
    Bury,
    Cancel,
    Claimed,
    Done,
    Engine,
    EngineSettings,
    HandBack,
    NewJob,
    Outcome,
    RenewReply,
    StepReply,
    outcome_bytes,
)
from agentqueue.store.jobs import Heartbeat, QueueSnapshot, Snapshot, Store
from agentqueue.store.server import Server, ServerOptions, leaner, resolve_url

__all__ = [
    "KEEP_FOREVER",
    "MAX_STEP",
    "MAX_STEP_BYTES",
    "Again",
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
    "Server",
    "ServerOptions",
    "Snapshot",
    "StepReply",
    "Store",
    "leaner",
    "outcome_bytes",
    "resolve_url",
]
