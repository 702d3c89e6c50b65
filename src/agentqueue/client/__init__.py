"""What producers use: enqueue jobs, ask for their state, wait for results, look after queues.

    async with Client("redis://localhost:6379") as client:
        job = await client.enqueue("flight-search", "search-flights", {"from": "BER"}, priority="urgent")
        offers = await job.result(timeout=30)

`SyncClient` is the same without `await`.
"""

from agentqueue.client.asynchronous import Client, Job
from agentqueue.client.model import Cancellation, DeadGroup, Page, Replayed
from agentqueue.client.sync import SyncClient, SyncJob
from agentqueue.stats import QueueStats, WorkerStats
from agentqueue.status import JobStatus
from agentqueue.wire import OMITTED

__all__ = [
    "OMITTED",
    "Cancellation",
    "Client",
    "DeadGroup",
    "Job",
    "JobStatus",
    "Page",
    "QueueStats",
    "Replayed",
    "SyncClient",
    "SyncJob",
    "WorkerStats",
]
