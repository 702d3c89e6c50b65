"""Handlers of a module whose annotations are strings (PEP 563), with a Context that only a type checker imports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import BaseModel

from agentqueue import Agent

if TYPE_CHECKING:
    from datetime import date

    from agentqueue import Context

agent = Agent("strings")


@agent.job
async def early(ctx: Context, trip: Trip) -> date: ...  # type: ignore[empty-body]


class Trip(BaseModel):
    day: str


@agent.job
async def plain(ctx: Context, days: list[Trip] | None = None) -> None: ...


@agent.job
async def unknown(ctx: Context, day: date) -> None: ...


def local() -> Agent:
    inner = Agent("local")

    @dataclass
    class Leg:
        day: str

    def declare() -> None:
        @inner.job
        async def fly(ctx: Context, leg: Leg) -> None: ...

    declare()

    @inner.job
    async def ahead(ctx: Context, leg: Later) -> None: ...

    class Later(BaseModel):
        day: str

    return inner
