"""Payloads between the agents. They are JSON in camelCase, and unknown fields are refused."""

import datetime as dt
import re
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

_ADDRESS = re.compile(r"[^@\s,;<>]+@[^@\s,;<>]+\.[A-Za-z]{2,}")


def _check_address(value: str) -> str:
    if not _ADDRESS.fullmatch(value):
        raise ValueError(f"{value!r} is not an e-mail address; write it as name@company.com")
    return value


Email = Annotated[str, Field(max_length=254), AfterValidator(_check_address)]
Name = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
"""An ID that is also a file name: without dots and slashes."""
Priority = Literal["urgent", "high", "normal", "low"]


class Wish(StrEnum):
    """The client's first criterion."""

    BALANCED = "balanced"
    CHEAPEST = "cheapest"
    FASTEST = "fastest"
    NON_STOP = "non-stop"


class Market(StrEnum):
    """A part of the operators, whose price lists one search reads."""

    EUROPE = "europe"
    OVERSEAS = "overseas"


class Payload(BaseModel):
    """The fields and the JSON form of every payload."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
    )

    request_id: Name
    user_id: Name
    priority: Priority = "normal"


class Item(BaseModel):
    """A part of a payload."""

    model_config = Payload.model_config


class ClientMessage(Payload):
    """Payload for `orchestrator`: the message of a client."""

    message: Annotated[str, Field(min_length=1, max_length=4_000)]
    client_email: Email
    received_on: dt.date
    """Day when the message arrived. "Next Friday" is relative to it, so that a rerun finds the same Friday."""


class Trip(Item):
    """The trip in a client's message."""

    departure: str
    """A city or an airport code, as the client wrote it."""
    arrival: str
    passengers: Annotated[int, Field(ge=1, le=10_000)]
    date: dt.date
    return_date: dt.date | None = None
    wish: Wish = Wish.BALANCED


class TripRequest(Payload):
    """Payload for `client-data` and `proposal-analysis`: a trip that a client requests."""

    client_email: Email
    trip: Trip


class FlightRequest(Payload):
    """Payload for `flight-search`: one way, or there and back."""

    market: Market | None = None
    """Market whose operators are asked. None: all of them."""
    departure: str
    arrival: str
    passengers: Annotated[int, Field(ge=1, le=10_000)]
    date: dt.date
    return_date: dt.date | None = None
    wish: Wish = Wish.BALANCED


class Quote(Item):
    """One operator's offer for the whole trip."""

    id: str
    operator_name: str
    price: int
    """Total price, in whole euros."""
    aircraft: str
    seats: int
    hours: float
    """Hours in the aircraft, out and back, with fuel stops."""
    stops: int
    """Number of fuel stops, out and back."""
    route: str
    """Airport codes, as in `BER-LIS` or `LIN-KEF-TEB / TEB-LIN`."""


class Quotes(Item):
    """Result of `flight-search`: the offers of the operators of a market."""

    summary: str = ""
    """The trip in one line."""
    quotes: list[Quote] = []
    refusal: str = ""
    """Why there are none."""


class Proposal(Payload):
    """Payload for `communication`: the offers and the recipient."""

    proposal_id: Name
    recipient_email: Email
    summary: str
    offers: Annotated[list[Quote], Field(min_length=1)]
    """Best first."""


class Receipt(Item):
    """Result of `communication`: the proposal that was sent."""

    proposal_id: str
    recipient_email: str
    operator_name: str
    price: int
    sent: bool
    """False if the proposal was already sent by an earlier run."""


class DeadJob(BaseModel):
    """Payload for `error-monitor`: a dead letter. Unknown fields are ignored, since AgentQueue can add fields."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, validate_by_name=True, validate_by_alias=True)

    id: str
    queue: str
    name: str
    reason: str
    error: str = ""
    attempts: int = 0
    data: object = None
