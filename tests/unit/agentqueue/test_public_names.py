"""The names that programs import: a change to them is meant, and none is loaded before it is used."""

import subprocess
import sys
from types import ModuleType

import pytest

import agentqueue
import agentqueue.client
import agentqueue.testing

ROOT = [
    "Agent", "AgentQueueError", "Backoff", "Child", "ChildFailed", "Client", "Context", "DurableError", "Fatal",
    "JobDeclaration", "JobStatus", "NotDone", "OutcomeUnknown", "Retry", "Snooze", "StepFailed", "SyncClient",
    "Throttled", "WorkerContext", "__version__", "declare", "step",
]  # fmt: skip
CLIENT = [
    "OMITTED", "Cancellation", "Client", "DeadGroup", "Job", "JobStatus", "LastRun", "Page", "QueueStats", "Replayed",
    "ScheduleStatus", "StreamEvent", "SyncClient", "SyncJob", "WorkerStats",
]  # fmt: skip


@pytest.mark.parametrize(
    ("module", "names"),
    [
        pytest.param(agentqueue, ROOT, id="agentqueue"),
        pytest.param(agentqueue.client, CLIENT, id="client"),
        pytest.param(
            agentqueue.testing,
            ["Burst", "EmbeddedServer", "HandlerContext", "RunningWorker", "Sandbox", "context"],
            id="testing",
        ),
    ],
)
def test_a_modules_names_are_these_and_each_is_there(module: ModuleType, names: list[str]) -> None:
    assert module.__all__ == names
    for name in names:
        assert getattr(module, name) is not None


@pytest.mark.parametrize("module", [agentqueue, agentqueue.client], ids=["agentqueue", "client"])
def test_a_package_lists_its_names_and_names_them_to_who_mistypes_one(module: ModuleType) -> None:
    assert dir(module) == sorted(module.__all__)
    with pytest.raises(AttributeError, match=f"no attribute 'Cleint'; it has {module.__all__[0]}, "):
        _ = module.Cleint


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = ("pydantic", "redis", "structlog", "asyncio")
    code = f"import sys, agentqueue; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
    code = f"import sys; from agentqueue import Agent; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
