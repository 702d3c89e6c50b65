"""The value of a function: its JSON, and the object that its return annotation makes of the JSON."""

from collections.abc import Callable
from typing import Any, Final

import orjson

from agentqueue.agent.annotation import Annotation, explain_errors
from agentqueue.agent.payload import refuse_secrets, to_json
from agentqueue.agent.signature import innermost, returned_type
from agentqueue.errors import InvalidPayload, UsageError
from agentqueue.model.json import encode, find_problem

_of_functions: Final[dict[Any, "ReturnValue"]] = {}
"""Values of functions that are defined once, at the top of a module or in a class."""


class ReturnValue:
    """The value that a function returns, by its annotation. Without one it is JSON."""

    def __init__(self, func: Callable[..., Any]) -> None:
        try:
            returned = returned_type(func)
        except UsageError:  # a class, or a function of C
            returned = Any
        self._annotation = Annotation(func, "return", returned, use="value")

    @classmethod
    def of(cls, func: Callable[..., Any]) -> "ReturnValue":
        """Return the value of a function. Call it where the function is used, since its annotation may be local."""
        inner = innermost(func)
        if "<locals>" in getattr(inner, "__qualname__", "<locals>"):
            return cls(func)
        found = _of_functions.get(inner)
        if found is None:
            found = _of_functions[inner] = cls(func)
        return found

    @property
    def title(self) -> str:
        """Return the annotation's name for error messages."""
        return self._annotation.title

    def prepare(self) -> None:
        """Build the validator before the function is called.

        Raises:
            UsageError: The annotation has an unknown name, or is a type that pydantic cannot read.
        """
        _ = self._annotation.adapter

    def dump(self, value: Any, what: str, *, max_bytes: int) -> bytes:
        """Return the JSON text of a value.

        Args:
            value: What the function has returned.
            what: Name of the value in error messages.
            max_bytes: Maximum size of the text.

        Raises:
            InvalidPayload: The value is not JSON, does not fit the annotation, has a secret, or is too large.
        """
        adapter = self._annotation.adapter
        if adapter is None:
            return encode(to_json(value, what, comes_back=False), what=what, max_bytes=max_bytes)
        data = value
        if find_problem(value, what) is not None:
            try:
                checked = adapter.validate_python(value)
                data = adapter.dump_python(checked, mode="json", by_alias=True, round_trip=True, warnings=False)
            except ValueError as exc:
                raise InvalidPayload(f"{what} does not fit {self.title}: {_explain(exc)}") from exc
        raw = encode(data, what=what, max_bytes=max_bytes)
        refuse_secrets(value, raw, what)
        return raw

    def load(self, raw: bytes) -> Any:
        """Return the value of a JSON text.

        Raises:
            InvalidPayload: The text does not fit the annotation. The message says why.
        """
        adapter = self._annotation.adapter
        if adapter is None:
            return orjson.loads(raw)
        try:
            return adapter.validate_json(raw)
        except ValueError as exc:
            raise InvalidPayload(_explain(exc)) from exc


def _explain(exc: ValueError) -> str:
    return explain_errors(exc) if hasattr(exc, "errors") else str(exc)
