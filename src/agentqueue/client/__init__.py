"""The clients of producers: enqueue jobs, read their state, wait for results, and manage queues.

    async with Client("redis://localhost:6379") as client:
        job = await client.enqueue("flight-search", "search-flights", {"from": "BER"}, priority="urgent")
        offers = await job.result(timeout=30)

`SyncClient` is the same without `await`.
"""

from typing import TYPE_CHECKING

from agentqueue.exports import lazy_exports

if TYPE_CHECKING:
    from agentqueue.client.async_client import Client, Job
    from agentqueue.client.responses import Cancellation, DeadGroup, Page, Replayed
    from agentqueue.client.schedules import LastRun, ScheduleStatus
    from agentqueue.client.stats import QueueStats, WorkerStats
    from agentqueue.client.status import JobStatus
    from agentqueue.client.sync_client import SyncClient, SyncJob
    from agentqueue.model.job import OMITTED
    from agentqueue.model.stream import StreamEvent

__all__ = [
    "OMITTED",
    "Cancellation",
    "Client",
    "DeadGroup",
    "Job",
    "JobStatus",
    "LastRun",
    "Page",
    "QueueStats",
    "Replayed",
    "ScheduleStatus",
    "StreamEvent",
    "SyncClient",
    "SyncJob",
    "WorkerStats",
]

if not TYPE_CHECKING:  # a type checker accepts any name of a module with `__getattr__`
    __getattr__, __dir__ = lazy_exports(
        globals(),
        {
            "Cancellation": "agentqueue.client.responses",
            "Client": "agentqueue.client.async_client",
            "DeadGroup": "agentqueue.client.responses",
            "Job": "agentqueue.client.async_client",
            "JobStatus": "agentqueue.client.status",
            "LastRun": "agentqueue.client.schedules",
            "OMITTED": "agentqueue.model.job",
            "Page": "agentqueue.client.responses",
            "QueueStats": "agentqueue.client.stats",
            "Replayed": "agentqueue.client.responses",
            "StreamEvent": "agentqueue.model.stream",
            "ScheduleStatus": "agentqueue.client.schedules",
            "SyncClient": "agentqueue.client.sync_client",
            "SyncJob": "agentqueue.client.sync_client",
            "WorkerStats": "agentqueue.client.stats",
        },
    )
