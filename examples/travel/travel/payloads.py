"""What the agents send each other. JSON in camelCase, as the outside world has it; unknown fields are refused."""

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
"""An id that also names a file: no dots, no slashes."""
Priority = Literal["urgent", "high", "normal", "low"]


class Wish(StrEnum):
    """What matters most to the client."""

    BALANCED = "balanced"
    CHEAPEST = "cheapest"
    FASTEST = "fastest"
    NON_STOP = "non-stop"


class Payload(BaseModel):
    """What every payload has."""

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
    """To `orchestrator`: what a client wrote."""

    message: Annotated[str, Field(min_length=1, max_length=4_000)]
    client_email: Email
    received_on: dt.date
    """The day the message came in: "next Friday" counts from it, so that a rerun means the same Friday."""


class Trip(Item):
    """What a message asks for."""

    departure: str
    """A city or an airport code, as the client wrote it."""
    arrival: str
    passengers: Annotated[int, Field(ge=1, le=10_000)]
    date: dt.date
    return_date: dt.date | None = None
    wish: Wish = Wish.BALANCED


class TripRequest(Payload):
    """To `client-data`: a trip that a client asks for."""

    client_email: Email
    trip: Trip


class FlightRequest(Payload):
    """To `flight-search`: one way, or there and back."""

    client_email: Email
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
    """Whole euros, all included."""
    aircraft: str
    seats: int
    hours: float
    """In the aircraft, out and back, fuel stops included."""
    stops: int
    """Fuel stops, out and back."""
    route: str
    """Airport codes, as in `BER-LIS` or `LIN-KEF-TEB / TEB-LIN`."""


class Quotes(Payload):
    """To `proposal-analysis`: what the operators offer for a trip."""

    client_email: Email
    summary: str
    """The trip in one line."""
    wish: Wish = Wish.BALANCED
    quotes: Annotated[list[Quote], Field(min_length=1)]


class Proposal(Payload):
    """To `communication`: what to send to whom."""

    proposal_id: Name
    recipient_email: Email
    summary: str
    offers: Annotated[list[Quote], Field(min_length=1)]
    """Best first."""


class Receipt(Item):
    """From `communication`: how the proposal went out."""

    proposal_id: str
    recipient_email: str
    operator_name: str
    price: int
    sent: bool
    """False: it had been sent before, and was not sent again."""


class DeadJob(BaseModel):
    """To `error-monitor`: what it needs to know of a dead letter. AgentQueue may add fields, so others are ignored."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, validate_by_name=True, validate_by_alias=True)

    id: str
    queue: str
    name: str
    reason: str
    error: str = ""
    attempts: int = 0
    data: object = None
