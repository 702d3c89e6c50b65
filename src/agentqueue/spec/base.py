"""What all models of the resource share: strict, frozen, camelCase, and as forgiving about null as the API server.

Types, bounds and patterns here become the CRD's schema, so each must also be sayable in a structural schema:
patterns in RE2, no constraints on map keys (those are CEL rules), no unions but integer-or-string.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    Strict,
    WithJsonSchema,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

INT_OR_STRING = {"anyOf": [{"type": "integer"}, {"type": "string"}], "x-kubernetes-int-or-string": True}

LABEL = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"
SUBDOMAIN = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
DATA_KEY = r"^[-._a-zA-Z0-9]+$"
ENV_NAME = r"^[-._a-zA-Z][-._a-zA-Z0-9]*$"
NO_SPACE = r"^[!-~]+$"
ONE_LINE = r"^[^\r\n]*$"
QUANTITY = r"^[0-9]+(\.[0-9]*)?([KMGTPE]i|[numkMGTPE]|[eE][-+]?[0-9]+)?$"
SIZE = r"^[1-9][0-9]*(\.[0-9]{1,3})?([KMGTP]i|[kMGTP])?$"
INT_OR_PERCENT = r"^(100|[1-9]?[0-9])%$"
_WORD = r"[A-Za-z_][A-Za-z0-9_]*"
HANDLER = rf"^{_WORD}(\.{_WORD})*:{_WORD}(\.{_WORD})*$"
HOST_PORT = r"^[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?:[0-9]{1,5}$"

SAYS = {
    LABEL: "small letters, digits and dashes, beginning with a letter and not ending with a dash, as in flight-search",
    SUBDOMAIN: "small letters, digits, dashes and dots, beginning and ending with a letter or digit",
    DATA_KEY: "letters, digits, dashes, dots and underscores, as in redis-url",
    ENV_NAME: "letters, digits, underscores, dots and dashes, not beginning with a digit, as in OPENAI_API_KEY",
    NO_SPACE: "text without spaces",
    ONE_LINE: "text on one line",
    QUANTITY: 'a quantity, as in "500m", "2" or "1Gi"',
    SIZE: "a size above zero, as in 10Gi",
    INT_OR_PERCENT: 'a whole number or a percentage from 0 to 100, as in 1 or "25%"',
    HANDLER: "module:attribute, as in travel.flight_search:agent",
    HOST_PORT: "host:port, as in sentinel-0.redis:26379",
}
"""What each pattern wants, in words: errors show these instead of a regular expression."""


class Model(BaseModel):
    """An object of the resource. Unknown keys are refused; a null is an absent key, as for the API server."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel)

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        declared = {info.alias for info in cls.model_fields.values()}
        return {key: value for key, value in data.items() if value is not None or key not in declared}


def without_nulls(value: Any) -> Any:
    """A map without its nulls: for the API server they are absent."""
    return {k: v for k, v in value.items() if v is not None} if isinstance(value, Mapping) else value


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _quantity(value: Any) -> str:
    """Integers are quantities too, but a float is not: 0.1 + 0.2 is no amount of memory."""
    if not _is_whole(value) and not isinstance(value, str):
        raise PydanticCustomError("quantity_type", "{says}", {"says": SAYS[QUANTITY]})
    text = str(value)
    if len(text) > QUANTITY_LENGTH or not re.fullmatch(QUANTITY, text):
        raise PydanticCustomError("quantity", "{says}", {"says": SAYS[QUANTITY]})
    return text


def _int_or_percent(value: Any) -> int | str:
    wrong = {"says": SAYS[INT_OR_PERCENT]}
    if _is_whole(value):
        if 0 <= value <= MAX_PODS:
            return int(value)
        raise PydanticCustomError("int_or_percent", "{says}", wrong)
    if not isinstance(value, str):
        raise PydanticCustomError("int_or_percent_type", "{says}", wrong)
    if not re.fullmatch(INT_OR_PERCENT, value):
        raise PydanticCustomError("int_or_percent", "{says}", wrong)
    return value


QUANTITY_LENGTH = 32
MAX_PODS = 1_000

Int = Annotated[int, Strict()]
Bool = Annotated[bool, Strict()]
Number = Annotated[float, Strict()]
Label = Annotated[str, Field(min_length=1, max_length=63, pattern=LABEL)]
AgentName = Annotated[str, Field(min_length=1, max_length=40, pattern=LABEL)]
ObjectName = Annotated[str, Field(min_length=1, max_length=253, pattern=SUBDOMAIN)]
DataKey = Annotated[str, Field(min_length=1, max_length=253, pattern=DATA_KEY)]
Image = Annotated[str, Field(min_length=1, max_length=512, pattern=NO_SPACE)]
Text = Annotated[str, Field(max_length=4_096)]
ShortText = Annotated[str, Field(max_length=316)]
Quantity = Annotated[
    str,
    PlainValidator(_quantity),
    WithJsonSchema({**INT_OR_STRING, "minimum": 0, "maxLength": QUANTITY_LENGTH, "pattern": QUANTITY}),
]
IntOrPercent = Annotated[
    int | str,
    PlainValidator(_int_or_percent),
    WithJsonSchema({**INT_OR_STRING, "maxLength": 4, "pattern": INT_OR_PERCENT, "minimum": 0, "maximum": MAX_PODS}),
]
Labels = Annotated[dict[str, ShortText], Field(max_length=64), BeforeValidator(without_nulls)]
Annotations = Annotated[dict[str, Text], Field(max_length=64), BeforeValidator(without_nulls)]
Quantities = Annotated[dict[str, Quantity], Field(max_length=16), BeforeValidator(without_nulls)]


def list_map(key: str) -> dict[str, Any]:
    """A list whose items are told apart by `key`: the API server merges by it. Goes with `unique`."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]}


def unique(key: str | None = None) -> AfterValidator:
    """Refuses doubles in a list: of items, or of the items' `key`. Goes with list types map and set."""

    def check(items: tuple[Any, ...]) -> tuple[Any, ...]:
        seen: set[Any] = set()
        for index, item in enumerate(items):
            value = getattr(item, key) if key else item
            if value in seen:
                at = (index, key) if key else (index,)
                raise PydanticCustomError("duplicate", 'is twice in the list: "{value}"', {"value": value, "at": at})
            seen.add(value)
        return items

    return AfterValidator(check)


def model_in(annotation: Any) -> "type[Model] | None":
    """The model behind an annotation: optional, in a list, or with constraints; None if there is none."""
    if isinstance(annotation, type) and issubclass(annotation, Model):
        return annotation
    return next((found for arg in get_args(annotation) if (found := model_in(arg))), None)


ATOMIC = {"x-kubernetes-list-type": "atomic"}
