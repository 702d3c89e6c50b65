"""What a producer asks for, checked and turned into what is sent: one place for Client, `ctx.enqueue`, CLI and HTTP."""

from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from typing import Any

from agentqueue.agent.job_definition import JobDefinition, job_of
from agentqueue.agent.payload import to_json
from agentqueue.errors import UsageError
from agentqueue.model.new_job import NO_PAYLOAD


def is_by_name(args: Sequence[Any], keywords: Mapping[str, Any]) -> bool:
    """Return whether a call of `enqueue` names the job by queue and name, not by a function or its definition."""
    return not (_is_function(args) or "function" in keywords)


def _is_function(args: Sequence[Any]) -> bool:
    return bool(args) and (callable(args[0]) or isinstance(args[0], JobDefinition))


def request_of(args: Sequence[Any], keywords: Mapping[str, Any]) -> tuple[Any, Any, Any, dict[str, Any]]:
    """Queue, job name, payload and options of a call `enqueue(queue, name, data, **options)` or
    `enqueue(function, payload, **options)`. A payload that is left out is NO_PAYLOAD; None is one.

    Raises:
        InvalidPayload: the function's annotation refuses the payload.
        UsageError: a missing or a surplus argument, or a function that is not a job.
    """
    options = dict(keywords)
    names = ("function", "payload") if _is_function(args) else ("queue", "name", "data")
    if len(args) > len(names):
        raise UsageError(f"enqueue takes {', '.join(names)} and keywords, but {len(args)} arguments were given")
    for name, value in zip(names, args, strict=False):
        if name in options:
            raise UsageError(f"enqueue got {name!r} twice")
        options[name] = value
    if "function" in options:
        return _typed(options)
    missing = [name for name in ("queue", "name") if name not in options]
    if missing:
        raise UsageError(
            f"enqueue needs {' and '.join(missing)}: enqueue(queue, name, data), or a function and a payload"
        )
    return options.pop("queue"), options.pop("name"), plain(options.pop("data", NO_PAYLOAD)), options


def _typed(options: dict[str, Any]) -> tuple[Any, Any, Any, dict[str, Any]]:
    function, payload = options.pop("function"), options.pop("payload", NO_PAYLOAD)
    job = job_of(function)
    if job is None:
        name = getattr(function, "__qualname__", repr(function))
        raise UsageError(f"{name} is not a job: decorate it with @agent.job, or give queue and job name as strings")
    return job.queue, job.name, job.payload.dump(payload), options


def plain(data: Any) -> Any:
    """A pydantic model or a dataclass as JSON types; all else as it is (and refused later, where it is not JSON).

    Raises:
        InvalidPayload: the model has a value that JSON can't say.
    """
    return to_json(data) if hasattr(type(data), "model_dump") or is_dataclass(data) else data
