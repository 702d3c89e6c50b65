"""A handler's result. Readers who know the handler get it as the annotated type, others as JSON."""

import contextlib
import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any, Self

import orjson

from agentqueue.agent.annotation import PLAIN_TYPES, Annotation, explain_errors
from agentqueue.agent.signature import returned_type
from agentqueue.errors import InvalidPayload


class Result:
    """The result of a job. It reads the JSON of a completed job as the type that the handler returns."""

    def __init__(self, annotation: Annotation) -> None:
        self._annotation = annotation

    @classmethod
    def of(cls, func: Callable[..., Any]) -> Self:
        """Return the result of a handler, from its return annotation."""
        return cls(Annotation(func, "return", returned_type(func), use="result"))

    def prepare(self) -> None:
        """Build the validator before a wait for the result.

        Raises:
            UsageError: The annotation has an unknown name, or is a type that pydantic cannot read.
        """
        _ = self._annotation.adapter

    def load(self, data: Any, what: str) -> Any:
        """Return the value that the handler returned. Fields that only the JSON has (computed ones) are dropped.

        Args:
            data: The JSON value.
            what: Beginning of the error message.

        Raises:
            InvalidPayload: The value does not fit the annotation. The message has the fields.
            UsageError: The annotation cannot be used; see `prepare`.
        """
        if self._annotation.type in PLAIN_TYPES:
            return data
        adapter = self._annotation.adapter
        assert adapter is not None
        try:
            try:
                return adapter.validate_json(orjson.dumps(data))
            except ValueError as exc:
                forbidden = _forbidden_fields(exc)
                if not forbidden:
                    raise
                return adapter.validate_json(orjson.dumps(_without(data, forbidden)))
        except ValueError as exc:
            reason = explain_errors(exc) if hasattr(exc, "errors") else str(exc)
            raise InvalidPayload(f"{what} does not fit {self._annotation.title}: {reason}") from exc


def _forbidden_fields(exc: Any) -> Sequence[Sequence[int | str]]:
    """Return the places of the fields that a model with `extra="forbid"` refuses. Empty if there are other errors."""
    errors = exc.errors(include_url=False) if hasattr(exc, "errors") else [{"type": ""}]
    return [error["loc"] for error in errors] if all(error["type"] == "extra_forbidden" for error in errors) else ()


def _without(data: Any, places: Sequence[Sequence[int | str]]) -> Any:
    """Return a copy of a JSON value without the fields at these places."""
    copy = orjson.loads(orjson.dumps(data))
    for *path, last in places:
        with contextlib.suppress(LookupError, TypeError):  # a place in a union has the name of a type, too
            del functools.reduce(operator.getitem, path, copy)[last]
    return copy
