"""A client of the language model, for steps: each call of `ask` or `choose` is one paid request."""

import json
import os
from typing import Any

import httpx

from agentqueue import Snooze

BUSY = (429, 503)
"""Statuses of a provider that is overloaded, or whose limit is reached."""
MODEL = "mock-1"


def services() -> httpx.AsyncClient:
    """Return a client of the services at SERVICES_URL."""
    return httpx.AsyncClient(base_url=os.environ["SERVICES_URL"], timeout=60)


async def ask(prompt: str) -> str:
    """Return the model's answer, which is streamed."""
    body = {"model": MODEL, "stream": True, "messages": [{"role": "user", "content": prompt}]}
    async with services() as client, client.stream("POST", "/v1/chat/completions", json=body) as response:
        check(response)
        events = [line.removeprefix("data: ") async for line in response.aiter_lines() if line.startswith("data: {")]
    return "".join(json.loads(event)["choices"][0]["delta"].get("content", "") for event in events).strip()


async def choose(prompt: str, tool: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments with which the model calls a tool."""
    function = {"name": tool, "parameters": {"type": "object", "properties": parameters}}
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": prompt}],
        "tools": [{"type": "function", "function": function}],
    }
    async with services() as client:
        response = await client.post("/v1/chat/completions", json=body)
    check(response)
    (call,) = response.json()["choices"][0]["message"]["tool_calls"]
    arguments: dict[str, Any] = json.loads(call["function"]["arguments"])
    return arguments


def check(response: httpx.Response) -> None:
    """Check that the model has answered.

    Raises:
        Snooze: The model is busy. The job runs again later, and uses up no attempt.
        httpx.HTTPStatusError: Another error. The job fails, and is tried again.
    """
    if response.status_code in BUSY:
        raise Snooze(f"the model answers {response.status_code}", after=float(response.headers.get("Retry-After", 1)))
    response.raise_for_status()
