"""An agent whose workers share a provider's limit: none of them gets a 429, however many there are.

`agentqueue worker assistants.digest:agent --limits limits.json` defines the limit and starts a worker.
"""

from agentqueue import Agent, Context, Throttled, WorkerContext
from assistants.model import BUSY, MODEL, services

agent = Agent("digest")
TOKENS = 200
"""Tokens that a digest takes at most, with its prompt."""


@agent.startup
async def connect(worker: WorkerContext) -> None:
    """Open one client for all jobs. A call should reach the provider soon after the limit has room for it."""
    worker.state.client = services()


@agent.shutdown
async def disconnect(worker: WorkerContext) -> None:
    """Close the client."""
    await worker.state.client.aclose()


@agent.job(timeout=3_600, attempts=1)
async def digest(ctx: Context, topic: str) -> str:
    """Return what there is to know about a topic."""
    return await ctx.step("summarize", summarize, ctx, topic)


async def summarize(ctx: Context, topic: str) -> str:
    """Ask the model once the limit has room. A refusal rests the limit for all workers, and uses up no attempt."""
    body = {"model": MODEL, "max_tokens": TOKENS, "messages": [{"role": "user", "content": f"Search: {topic}"}]}
    async with ctx.limit("gpt-main", units=TOKENS) as use:
        response = await ctx.state.client.post("/v1/chat/completions", json=body)
        if response.status_code in BUSY:
            raise Throttled("gpt-main", retry_after=float(response.headers.get("Retry-After", 1)))
        response.raise_for_status()
        completion = response.json()
        use.units = completion["usage"]["total_tokens"]
    text: str = completion["choices"][0]["message"]["content"]
    return text
