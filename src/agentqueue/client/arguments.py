"""Read the arguments of `enqueue`, for the clients, `ctx.enqueue`, the command line and HTTP."""

from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from typing import Any, Final, NamedTuple

from agentqueue.agent.declaration import JobDeclaration
from agentqueue.agent.job_definition import JobDefinition, job_of
from agentqueue.agent.payload import to_json
from agentqueue.agent.result import Result
from agentqueue.errors import UsageError
from agentqueue.model.new_job import NO_PAYLOAD

JSON_TYPES: Final = frozenset((dict, list, tuple, str, int, float, bool, type(None)))
"""Types of most payloads, which are no models."""
DEFINED: Final = (JobDefinition, JobDeclaration)
"""Types that stand for a job and cannot be called."""


class EnqueueCall(NamedTuple):
    """The arguments of one call of `enqueue`. Queue, name and options are not checked yet."""

    queue: Any
    name: Any
    data: Any
    """JSON types, or NO_PAYLOAD."""
    options: dict[str, Any]
    """See `EnqueueOptions`."""
    result: Result | None = None
    """The result of a job that was given by its function, definition or declaration."""


def is_by_name(args: Sequence[Any], keywords: Mapping[str, Any]) -> bool:
    """Return whether the caller wrote the job's name. A function and its definition know theirs."""
    target = args[0] if _is_function(args) else keywords.get("function")
    return target is None or isinstance(target, JobDeclaration)


def _is_function(args: Sequence[Any]) -> bool:
    return bool(args) and (callable(args[0]) or isinstance(args[0], DEFINED))


def read_call(args: Sequence[Any], keywords: Mapping[str, Any]) -> EnqueueCall:
    """Return queue, job name, payload and options of a call of `enqueue`.

    The call is `enqueue(queue, name, data, **options)` or `enqueue(function, payload, **options)`. A payload that is
    left out is NO_PAYLOAD; None is a payload.

    Raises:
        InvalidPayload: The function's annotation refuses the payload.
        UsageError: An argument is missing or surplus, or the function is not a job.
    """
    options = dict(keywords)
    if args:  # the jobs of a bulk have keywords alone
        names = ("function", "payload") if _is_function(args) else ("queue", "name", "data")
        if len(args) > len(names):
            raise UsageError(f"enqueue takes {', '.join(names)} and keywords, but {len(args)} arguments were given")
        for name, value in zip(names, args, strict=False):
            if name in options:
                raise UsageError(f"enqueue got {name!r} twice")
            options[name] = value
    if "function" in options:
        return _typed(options)
    if "queue" not in options or "name" not in options:
        missing = [name for name in ("queue", "name") if name not in options]
        raise UsageError(
            f"enqueue needs {' and '.join(missing)}: enqueue(queue, name, data), or a function and a payload"
        )
    queue, name, data = options.pop("queue"), options.pop("name"), options.pop("data", NO_PAYLOAD)
    return EnqueueCall(queue, name, plain(data), options)


def _typed(options: dict[str, Any]) -> EnqueueCall:
    function, payload = options.pop("function"), options.pop("payload", NO_PAYLOAD)
    job = job_of(function)
    if job is None:
        name = getattr(function, "__qualname__", repr(function))
        raise UsageError(f"{name} is not a job: decorate it with @agent.job, or give queue and job name as strings")
    return EnqueueCall(job.queue, job.name, job.payload.dump(payload), options, job.result)


def plain(data: Any) -> Any:
    """Return a pydantic model or a dataclass as JSON types, and any other value unchanged.

    A value that is not JSON is refused later, when the job is encoded.

    Raises:
        InvalidPayload: The model has a value that JSON cannot represent.
    """
    if type(data) in JSON_TYPES:
        return data
    return to_json(data) if hasattr(type(data), "model_dump") or is_dataclass(data) else data
