"""Base of all models of the resource: strict, frozen, camelCase, and null means absent as in the API server.

Types, bounds and patterns become the CRD's schema, so a structural schema must support them: patterns in RE2, no
constraints on map keys (CEL rules check these), no unions except integer-or-string.
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
JOB_NAME = r"^[A-Za-z0-9_.:-]+$"
TIME_ZONE = r"^[A-Za-z0-9]+([A-Za-z0-9_+/-]*[A-Za-z0-9_])?$"


def _cron_field(number: str, *special: str) -> str:
    """Return the pattern of a field of a cron expression: a list of numbers, ranges, steps and special values."""
    item = "|".join((rf"(\*|({number})(-({number}))?)(/[1-9][0-9]{{0,2}})?", *special))
    return f"({item})(,({item}))*"


_MINUTE = _cron_field("[0-5]?[0-9]")
_DAY_OF_WEEK = "[0-7]|SUN|MON|TUE|WED|THU|FRI|SAT"
CRON = "(?i)^({seconds} +)?{rest}$".format(
    seconds=_MINUTE,
    rest=" +".join(
        (
            _MINUTE,
            _cron_field("[01]?[0-9]|2[0-3]"),
            _cron_field("0?[1-9]|[12][0-9]|3[01]", "LW?"),
            _cron_field("0?[1-9]|1[0-2]|JAN|FEB|MAR|APR|MAY|JUN|JUL|AUG|SEP|OCT|NOV|DEC"),
            _cron_field(_DAY_OF_WEEK, f"({_DAY_OF_WEEK})#[1-5]", "[0-7]L"),
        )
    ),
)
"""Pattern of the cron expressions that cronsim reads. Ranges that go backwards, and days that no month has, remain."""

PATTERN_HINTS = {
    LABEL: "lowercase letters, digits and dashes, with a letter first and no dash last, as in flight-search",
    SUBDOMAIN: "lowercase letters, digits, dashes and dots, beginning and ending with a letter or digit",
    DATA_KEY: "letters, digits, dashes, dots and underscores, as in redis-url",
    ENV_NAME: "letters, digits, underscores, dots and dashes, not beginning with a digit, as in OPENAI_API_KEY",
    NO_SPACE: "text without spaces",
    ONE_LINE: "text on one line",
    QUANTITY: 'a quantity, as in "500m", "2" or "1Gi"',
    SIZE: "a size above zero, as in 10Gi",
    INT_OR_PERCENT: 'a whole number or a percentage from 0 to 100, as in 1 or "25%"',
    HANDLER: "module:attribute, as in travel.flight_search:agent",
    HOST_PORT: "host:port, as in sentinel-0.redis:26379",
    JOB_NAME: "letters, digits, underscores, dots, colons and dashes, as in send-report",
    TIME_ZONE: "an IANA time zone, as in Europe/Berlin or UTC",
    CRON: 'a cron expression: minute hour day month weekday, and before them seconds if wanted, as in "30 9 * * 1-5"',
}
"""Description of each pattern, which errors show instead of the regular expression."""


class Model(BaseModel):
    """An object of the resource. Unknown keys are errors. A null counts as an absent key, as in the API server."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel)

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        declared = {info.alias for info in cls.model_fields.values()}
        return {key: value for key, value in data.items() if value is not None or key not in declared}


def without_nulls(value: Any) -> Any:
    """Return a map without its nulls, which the API server treats as absent. Other values are unchanged."""
    return {k: v for k, v in value.items() if v is not None} if isinstance(value, Mapping) else value


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _quantity(value: Any) -> str:
    """Check a quantity. Integers are quantities too, but floats are not: they are inexact."""
    if not _is_whole(value) and not isinstance(value, str):
        raise PydanticCustomError("quantity_type", "{hint}", {"hint": PATTERN_HINTS[QUANTITY]})
    text = str(value)
    if len(text) > QUANTITY_LENGTH or not re.fullmatch(QUANTITY, text):
        raise PydanticCustomError("quantity", "{hint}", {"hint": PATTERN_HINTS[QUANTITY]})
    return text


def _int_or_percent(value: Any) -> int | str:
    wrong = {"hint": PATTERN_HINTS[INT_OR_PERCENT]}
    if _is_whole(value):
        if 0 <= value <= MAX_PODS:
            return int(value)
        raise PydanticCustomError("int_or_percent", "{hint}", wrong)
    if not isinstance(value, str):
        raise PydanticCustomError("int_or_percent_type", "{hint}", wrong)
    if not re.fullmatch(INT_OR_PERCENT, value):
        raise PydanticCustomError("int_or_percent", "{hint}", wrong)
    return value


QUANTITY_LENGTH = 32
"""Maximum length of a quantity, in characters, more than any real one has."""
MAX_PODS = 1_000
"""Maximum of fields that count pods."""

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
    """Return the schema of a list that the API server merges by the items' `key`. Use it together with `unique`."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]}


def unique(key: str | None = None) -> AfterValidator:
    """Return a validator that refuses duplicates in a list, of items or of the items' `key`."""

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
    """Return the model in an annotation that may be optional, a list or constrained. None if there is no model."""
    if isinstance(annotation, type) and issubclass(annotation, Model):
        return annotation
    return next((found for arg in get_args(annotation) if (found := model_in(arg))), None)


ATOMIC = {"x-kubernetes-list-type": "atomic"}
"""Schema of a list that is replaced as a whole."""
