"""An agent of many calls in a row: each paragraph needs the one before. A crash repeats only the call under way."""

from pydantic import BaseModel

from agentqueue import Agent, Context
from assistants.model import ask

agent = Agent("essay")


class Wish(BaseModel):
    """What to write."""

    topic: str
    paragraphs: int = 20


@agent.job(timeout=600, attempts=3)
async def write_essay(ctx: Context, wish: Wish) -> list[str]:
    """Write one paragraph after the other."""
    essay: list[str] = []
    for number in range(wish.paragraphs):
        essay.append(await ctx.step("paragraph", ask, f"Write: {wish.topic}, part {number + 1}"))
        await ctx.progress(100 * len(essay) / wish.paragraphs)
    return essay
