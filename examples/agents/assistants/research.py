"""An agent that plans a search, lets another agent run its queries at the same time, and writes a report.

`research` waits for its children without a slot. A crash repeats at most the request that was under way.
"""

import json
from datetime import timedelta

from pydantic import BaseModel

from agentqueue import Agent, Context
from assistants.model import ask

agent = Agent("research")
search_agent = Agent("search")


class Topic(BaseModel):
    """What to write about."""

    text: str


class Query(BaseModel):
    """One search."""

    text: str


class Finding(BaseModel):
    """What a search has found."""

    query: str
    text: str


class Plan(BaseModel):
    """The searches for a topic."""

    queries: list[str]


class Report(BaseModel):
    """The result."""

    title: str
    findings: list[Finding]


async def make_plan(topic: str) -> Plan:
    """Let the model choose the queries."""
    return Plan(**json.loads(await ask(f"Plan: {topic}")))


async def write(topic: str, findings: list[Finding]) -> Report:
    """Let the model write the report."""
    return Report(title=await ask(f"Write: {topic}"), findings=findings)


@search_agent.job(timeout=60, attempts=3)
async def search(ctx: Context, query: Query) -> Finding:
    """Run one query."""
    return Finding(query=query.text, text=await ctx.step("ask", ask, f"Search: {query.text}"))


@agent.job(timeout=600, attempts=3)
async def research(ctx: Context, topic: Topic) -> Report:
    """Plan, search and write."""
    plan = await ctx.step("plan", make_plan, topic.text)
    searches = [ctx.child(search, Query(text=query)) for query in plan.queries]
    findings = await ctx.gather(searches, timeout=timedelta(hours=1))
    return await ctx.step("write", write, topic.text, findings)
