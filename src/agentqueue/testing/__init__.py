"""Test your own agents: on a real server with a clock to move (`Sandbox`), or handlers alone (`context`).

    async def test_offers_are_ranked():
        async with Sandbox(agent) as box:
            job = await box.client.enqueue(search_flights, FlightRequest(...))
            assert await job.result() == [...]  # runs the handlers, and skips the delays of retries

A Sandbox needs `agentqueue[embedded]`, and to run handlers `agentqueue-worker`.
"""

from typing import TYPE_CHECKING

from agentqueue.exports import lazy_exports

if TYPE_CHECKING:
    from agentqueue.local.server import EmbeddedServer
    from agentqueue.testing.handler_context import HandlerContext, context
    from agentqueue.testing.sandbox import Burst, RunningWorker, Sandbox

__all__ = ["Burst", "EmbeddedServer", "HandlerContext", "RunningWorker", "Sandbox", "context"]

if not TYPE_CHECKING:  # a type checker accepts any name of a module with `__getattr__`
    __getattr__, __dir__ = lazy_exports(
        globals(),
        {
            "Burst": "agentqueue.testing.sandbox",
            "EmbeddedServer": "agentqueue.local.server",
            "HandlerContext": "agentqueue.testing.handler_context",
            "RunningWorker": "agentqueue.testing.sandbox",
            "Sandbox": "agentqueue.testing.sandbox",
            "context": "agentqueue.testing.handler_context",
        },
    )
