"""A handler's payload. It is checked and encoded as JSON when it is enqueued, and decoded when the job runs.

A payload that does not equal its decoded JSON is refused when it is enqueued: the handler would get another value.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Self

import orjson

from agentqueue.agent.annotation import Annotation, complete, explain_errors
from agentqueue.agent.signature import Parameter, name_of
from agentqueue.errors import InvalidPayload
from agentqueue.model.json import find_problem
from agentqueue.model.new_job import NO_PAYLOAD
from agentqueue.model.numbers import plain_number

if TYPE_CHECKING:
    from pydantic import TypeAdapter

_MASK: Final = b"**********"
"""Text that pydantic writes for a secret."""


class Payload:
    """The payload of a job. It converts between JSON and the annotated type.

    Args:
        owner: Name of the handler, for error messages.
        parameter: The annotation of the handler's second parameter. None for a handler without a payload.
        is_optional: The handler has a default for the payload.
    """

    def __init__(self, owner: str, parameter: Annotation | None, *, is_optional: bool = False) -> None:
        self.owner = owner
        self._parameter = parameter
        self.parameter = None if parameter is None else parameter.name
        self.is_optional = is_optional
        """True if the handler has a default for the payload."""

    @classmethod
    def of(cls, func: Callable[..., Any], parameter: Parameter | None) -> Self:
        """Return the payload of a handler. `parameter` is its second parameter, if it has one."""
        if parameter is None:
            return cls(name_of(func), None)
        annotation = Annotation(func, parameter.name, parameter.annotation, use="payload")
        return cls(name_of(func), annotation, is_optional=parameter.default is not parameter.empty)

    @property
    def annotation(self) -> Any:
        """Return the payload's type: Any without an annotation, None for a handler without a payload.

        Raises:
            UsageError: The annotation has an unknown name.
        """
        return None if self._parameter is None else self._parameter.type

    @functools.cached_property
    def _adapter(self) -> "TypeAdapter[Any] | None":
        return None if self._parameter is None else self._parameter.adapter

    def prepare(self) -> None:
        """Build the validator at the start of a worker, not with the first job.

        Raises:
            UsageError: The annotation cannot be a payload.
        """
        _ = self._adapter

    def load(self, data: Any) -> Any:
        """Return the handler's argument for the JSON value `data`.

        Raises:
            InvalidPayload: The model refuses the value. The message is the model's, with paths.
        """
        adapter = self._adapter
        if adapter is None:
            return data
        try:
            return adapter.validate_json(orjson.dumps(data))
        except ValueError as exc:
            raise InvalidPayload(self._explain(exc)) from exc

    def dump(self, value: Any = NO_PAYLOAD) -> Any:
        """Return the JSON value of a producer's payload, checked against the annotation.

        NO_PAYLOAD is returned unchanged: the handler runs with its default, or without a payload.

        Raises:
            InvalidPayload: The handler would refuse the value or get another one, or it takes no payload.
        """
        if self.parameter is None:
            if value is None or value is NO_PAYLOAD:
                return NO_PAYLOAD
            raise InvalidPayload(f"{self.owner} takes no payload, but one was given")
        if value is NO_PAYLOAD:
            if not self.is_optional:
                self.load(None)
            return NO_PAYLOAD
        adapter = self._adapter
        return to_json(value) if adapter is None else self._dump(adapter, value)

    def _dump(self, adapter: "TypeAdapter[Any]", value: Any) -> Any:
        is_json = find_problem(value) is None
        try:
            checked = self.load(value) if is_json else adapter.validate_python(value)
            data = adapter.dump_python(checked, mode="json", by_alias=True, round_trip=True, warnings=False)
        except ValueError as exc:
            raise exc if isinstance(exc, InvalidPayload) else InvalidPayload(self._explain(exc)) from exc
        if data == value:  # `checked` was decoded from this JSON
            return data
        try:
            check_comes_back(adapter, checked, data, f"{self._title} can't be sent")
        except InvalidPayload:
            if not is_json or any(_secrets("", checked)):
                raise
            return value  # JSON that the handler accepts, although its model would encode it differently
        return data

    def schema(self) -> dict[str, Any] | None:
        """Return the payload's JSON schema. None without a payload, an annotation, or a schema for its type."""
        if self._adapter is None:
            return None
        from pydantic.errors import PydanticUserError  # noqa: PLC0415  # the adapter has imported pydantic

        try:
            return self._adapter.json_schema(by_alias=True)
        except PydanticUserError:
            return None

    @property
    def _title(self) -> str:
        return "" if self._parameter is None else self._parameter.title

    def _explain(self, exc: ValueError) -> str:
        return (
            f"{self._title}: {exc}"
            if not hasattr(exc, "errors")
            else f"{self._title} refuses the payload: {explain_errors(exc)}"
        )


# Round trip


def check_comes_back(adapter: "TypeAdapter[Any]", value: Any, data: Any, what: str) -> None:
    """Refuse a value that does not equal its decoded JSON.

    Args:
        adapter: The adapter of the type that decodes the JSON.
        value: A value of that type.
        data: Its JSON, as Python's own types.
        what: Beginning of the error message.

    Raises:
        InvalidPayload: The decoded value differs, or the JSON is refused. The message names the first field.
    """
    try:
        back = adapter.validate_json(orjson.dumps(data))
        if back == value or _is_incomparable(adapter, value, back, data):
            return
        difference = next(_differences("", value, back), None)
        if difference is None:
            return
        reason = _describe_difference(*difference)
    except ValueError as exc:
        reason = f"its own JSON is refused: {explain_errors(exc) if hasattr(exc, 'errors') else exc}"
    except orjson.JSONEncodeError:  # the encoder of the job names the place
        return
    if find_problem(data) is None:
        raise InvalidPayload(f"{what}: {reason}")


def _is_incomparable(adapter: "TypeAdapter[Any]", value: Any, back: Any, data: Any) -> bool:
    """Return whether the values have the same content, but their type never compares equal."""
    if back == adapter.validate_json(orjson.dumps(data)):
        return False
    held = adapter.dump_python(value, warnings=False)
    return bool(held == adapter.dump_python(back, warnings=False))


def _describe_difference(path: str, value: Any, back: Any) -> str:
    place = path.removeprefix(".") or "it"
    if is_secret(value):
        return f"{place} is a {type(value).__name__}, whose value is not written: {_REFERENCE}"
    if place.rpartition(".")[2].startswith("_"):
        return f"{place} is a private attribute, which is not written; make it a field, or set it where the job runs"
    if type(value) is not type(back):
        return (
            f"{place} is a {type(value).__name__} and would reach the handler as {type(back).__name__}; "
            "annotate it with the type that is sent, or write it with a serializer that fits its type"
        )
    return (
        f"{place} is {value!r:.80} and would reach the handler as {back!r:.80}; "
        "it needs a serializer and a type that fit each other"
    )


_REFERENCE: Final = "pass a reference (its name, or the key of a row) and read it where the job runs"


def _differences(path: str, value: Any, back: Any) -> Iterator[tuple[str, Any, Any]]:
    """Return the deepest differing parts that both values have.

    A tuple and a list with the same items do not differ if the annotation allows both (Sequence, Any), since JSON has
    one kind of array.
    """
    if value == back or _is_same_moment(value, back):
        return
    are_arrays = type(value) in _ARRAYS and type(back) in _ARRAYS
    if type(value) is type(back) or are_arrays:
        mine, there = dict(_parts(value)), dict(_parts(back))
        unequal = [name for name, part in mine.items() if name in there and part != there[name]]
        for name in unequal:
            yield from _differences(f"{path}{name}", mine[name], there[name])
        if mine.keys() == there.keys() and (unequal or are_arrays):
            return
    yield path, value, back


_ARRAYS: Final = (list, tuple)


def _is_same_moment(value: Any, back: Any) -> bool:
    """Return whether both are the same moment. `==` denies it for times in an hour that occurs twice (PEP 495)."""
    if not (isinstance(value, datetime) and isinstance(back, datetime) and value.tzinfo and back.tzinfo):
        return False
    return value - back == timedelta(0)


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """Return the parts of a model, a dataclass or a container, each with its part of the path."""
    if isinstance(value, Mapping):
        yield from ((f".{key}", part) for key, part in value.items())
    elif isinstance(value, list | tuple | set | frozenset):
        yield from ((f"[{index}]", part) for index, part in enumerate(value))
    elif is_dataclass(value) and not isinstance(value, type):
        yield from ((f".{field.name}", getattr(value, field.name, None)) for field in fields(value))
    elif _is_model(value):
        yield from ((f".{name}", part) for name, part in value.__dict__.items())
        for more in (value.__pydantic_extra__, value.__pydantic_private__):
            yield from ((f".{name}", part) for name, part in (more or {}).items())


def _is_model(value: Any) -> bool:
    return hasattr(type(value), "model_dump")


def is_secret(value: Any) -> bool:
    """Return whether the value is one of pydantic's secrets, which are encoded as asterisks."""
    return callable(getattr(type(value), "get_secret_value", None))


# Payloads without an annotation


def to_json(value: Any, what: str = "", *, comes_back: bool = True) -> Any:
    """Return a value as JSON types. JSON stays unchanged; pydantic models, dataclasses and dates are encoded.

    Args:
        value: The value. NO_PAYLOAD is returned unchanged.
        what: Name of the value in error messages. By default "the payload".
        comes_back: Require that models and dataclasses equal their decoded JSON. False for a handler's result, whose
            readers get JSON: it then includes computed fields.

    Raises:
        InvalidPayload: The value cannot be encoded, has a secret, or has a model that does not equal its decoded JSON.
    """
    problem = None if value is NO_PAYLOAD else find_problem(value, what)
    if problem is None:
        return value
    from pydantic_core import PydanticSerializationError, to_jsonable_python  # noqa: PLC0415  # takes 100 ms, and is rarely needed

    try:
        data = to_jsonable_python(value, by_alias=True, round_trip=comes_back, fallback=_number_of)
    except (PydanticSerializationError, ValueError) as exc:
        raise InvalidPayload(problem) from exc
    name = what or "the payload"
    if comes_back:
        for path, model in _models("", value):
            _check_model(model, f"{name}{path} can't be sent")
    refuse_secrets(value, repr(data).encode(errors="replace"), name)
    return data


def refuse_secrets(value: Any, raw: bytes, what: str) -> None:
    """Refuse a value with a secret, of which its JSON has asterisks.

    Raises:
        InvalidPayload: The value has a secret. The message names the place.
    """
    if _MASK in raw:
        for path in _secrets("", value):
            raise InvalidPayload(
                f"{what} holds a secret at {path or 'its top'}, whose value is not written: {_REFERENCE}"
            )


def _number_of(value: Any) -> int | float:
    """Return a number of a type that pydantic does not know, such as numpy's or Fraction.

    Raises:
        ValueError: The value is not a number.
    """
    number = plain_number(value)
    if number is None:
        raise ValueError("not a number")
    return number


def _models(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Return the outermost models and dataclasses in a value, each with its path."""
    if _is_model(value) or is_dataclass(value):
        yield path, value
        return
    for step, part in _parts(value):
        yield from _models(path + step, part)


def _secrets(path: str, value: Any) -> Iterator[str]:
    if is_secret(value) and value.get_secret_value():
        yield path
    for step, part in _parts(value):
        yield from _secrets(path + step, part)


def _check_model(model: Any, what: str) -> None:
    adapter = _adapter_of(type(model))  # type: ignore[arg-type]  # a class is hashable
    if adapter is not None:
        data = adapter.dump_python(model, mode="json", by_alias=True, round_trip=True, warnings=False)
        check_comes_back(adapter, model, data, f"{what} as a {type(model).__name__}")


@functools.lru_cache(maxsize=1_024)
def _adapter_of(kind: Any) -> "TypeAdapter[Any] | None":
    """Return the adapter of a class. None for a dataclass that pydantic cannot read."""
    from pydantic import TypeAdapter  # noqa: PLC0415
    from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError  # noqa: PLC0415

    try:
        return complete(TypeAdapter(kind))
    except (PydanticUserError, PydanticUndefinedAnnotation, NameError):
        return None
