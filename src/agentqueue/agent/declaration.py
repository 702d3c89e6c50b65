"""Declarations of jobs, for producers that do not import the agent's code.

search = declare("flight-search", "search-flights", Query, Offers)
job = await client.enqueue(search, Query(...))   # a type checker knows the payload and the result
offers = await job.result()
"""

from dataclasses import dataclass
from typing import Any, Generic, TypeVar, overload

from agentqueue.agent.annotation import Annotation
from agentqueue.agent.payload import Payload
from agentqueue.agent.result import Result
from agentqueue.keys import check_job_name, check_queue

P = TypeVar("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class JobDeclaration(Generic[P, R]):
    """A job's queue and name, and the types of its payload and its result. Its handler is elsewhere."""

    queue: str
    name: str
    payload: Payload
    result: Result


@overload
def declare(queue: str, name: str, payload: type[P], result: type[R]) -> JobDeclaration[P, R]: ...
@overload
def declare(queue: str, name: str, payload: type[P], result: None = None) -> JobDeclaration[P, None]: ...
@overload
def declare(queue: str, name: str, payload: None, result: type[R]) -> JobDeclaration[None, R]: ...
@overload
def declare(queue: str, name: str, payload: None = None, result: None = None) -> JobDeclaration[None, None]: ...
def declare(queue: str, name: str, payload: Any = None, result: Any = None) -> Any:
    """Declare a job of another program: what `enqueue` takes in place of the handler.

    Args:
        queue: The agent's queue.
        name: The job's name.
        payload: The payload's type: a pydantic model, a dataclass, a TypedDict or a type of JSON values, such as
            `list[str]`. None: the handler takes the context alone.
        result: The type that the handler returns. `job.result()` returns such a value. None: it returns None.

    Raises:
        InvalidName: The queue or the name is outside its alphabet.
        UsageError: A type cannot be a payload or a result.
    """
    owner = f"declare({queue!r}, {name!r})"
    parameter = None if payload is None else Annotation(None, "payload", payload, use="payload", owner=owner)
    return JobDeclaration(
        check_queue(queue),
        check_job_name(name),
        Payload(owner, parameter),
        Result(Annotation(None, "result", result, use="result", owner=owner)),
    )
