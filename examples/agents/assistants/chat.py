"""A chat whose answers come while the model writes them, and may be stopped. `python -m assistants.chat "Write: tea"`.

The agent is one of pydantic-ai, durable by one capability. The terminal is a reader of the job's stream; a web page
would be one too.
"""

import argparse
import asyncio
import os
import sys
from collections.abc import Callable

from openai import AsyncOpenAI
from pydantic_ai import Agent as Assistant
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from agentqueue import Agent, Client, Context
from agentqueue.integrations.pydantic_ai import AgentQueueDurability
from assistants.model import MODEL

agent = Agent("chat")


@agent.job(timeout=120, attempts=3)
async def answer(ctx: Context, question: str) -> str:
    """Answer a question. The text is emitted while it comes."""
    async with AsyncOpenAI(base_url=f"{os.environ['SERVICES_URL']}/v1", api_key="none", max_retries=0) as client:
        model = OpenAIChatModel(MODEL, provider=OpenAIProvider(openai_client=client))
        assistant = Assistant(model, name="chat")
        result = await assistant.run(question, capabilities=[AgentQueueDurability(ctx, emit=True)])
    return result.output


async def ask(client: Client, question: str, write: Callable[[str], object]) -> str:
    """Write the answer while it comes, and return the state in which the job has ended.

    Cancelling this call, as Ctrl-C does, cancels the job: its worker stops asking the model.
    """
    job = await client.enqueue(answer, question)
    try:
        async for event in job.stream():
            if event.type == "data":
                write(event.data)
            elif event.type == "rewind":
                write("\n(the answer begins again)\n")
    except asyncio.CancelledError:
        await job.cancel()
        raise
    return str((await job.status()).state)


async def main() -> None:
    """Answer the question of the command line."""
    parser = argparse.ArgumentParser(description="Ask the agent `chat`, and see the answer while it comes.")
    parser.add_argument("question")

    def write(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    async with Client() as client:
        state = await ask(client, parser.parse_args().question, write)
    print(f"\n{state}")


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        sys.exit("\nstopped")
