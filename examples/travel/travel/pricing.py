"""Prices of the operators for a trip. The same request always gets the same quotes."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final

from travel.airports import Airport, atlas
from travel.errors import CannotServe
from travel.fleet import FLEET, MARKETS, Aircraft, Operator
from travel.payloads import FlightRequest, Quote
from travel.ranking import rank
from travel.routing import Route, find_route

POSITIONING: Final = 0.65
"""Cost of an empty leg (to the client, or home) as a fraction of the cost with passengers."""
LANDING_EUROS: Final = 850
NIGHT_EUROS: Final = 1_200
"""Cost of crew and parking per night away. It counts up to the cost of a flight home."""
MAX_NIGHTS: Final = 3
WEEKEND: Final = 1.08
"""Factor for flights on Fridays, Saturdays and Sundays."""


@dataclass(frozen=True, slots=True)
class Leg:
    """A flight with the client on board."""

    departure: Airport
    arrival: Airport
    day: date


def search(request: FlightRequest) -> list[Quote]:
    """Return one offer per operator of the market that can fly the trip, with the aircraft that fits the wish best.

    Raises:
        CannotServe: an airport is not known, or no aircraft of the fleet can do it; the message says why.
    """
    legs = _legs(request)
    _check_seats(request.passengers)
    operators = FLEET if request.market is None else MARKETS[request.market]
    quotes = [quote for operator in operators if (quote := _best_quote(request, operator, legs))]
    if not quotes:
        out = legs[0]
        raise CannotServe(
            f"no aircraft that seats {request.passengers} gets from {out.departure.iata} to {out.arrival.iata} "
            "with two fuel stops; split the party or the trip"
        )
    return quotes


def _legs(request: FlightRequest) -> tuple[Leg, ...]:
    departure, arrival = atlas().find(request.departure), atlas().find(request.arrival)
    if departure == arrival:
        raise CannotServe(f"{request.departure!r} and {request.arrival!r} are the same airport, {departure.iata}")
    out = Leg(departure, arrival, request.date)
    return (out, Leg(arrival, departure, request.return_date)) if request.return_date else (out,)


def _check_seats(passengers: int) -> None:
    largest = max((a for operator in FLEET for a in operator.aircraft), key=lambda a: a.seats)
    if passengers > largest.seats:
        raise CannotServe(
            f"{passengers} passengers are more than any aircraft of the fleet seats "
            f"(the largest, {largest.name}, takes {largest.seats}); split the party, or ask an airline"
        )


def _best_quote(request: FlightRequest, operator: Operator, legs: Sequence[Leg]) -> Quote | None:
    fit = [aircraft for aircraft in operator.aircraft if aircraft.seats >= request.passengers]
    quotes = [quote for aircraft in fit if (quote := _quote(request, operator, aircraft, legs))]
    return rank(quotes, request.wish)[0] if quotes else None


def _quote(request: FlightRequest, operator: Operator, aircraft: Aircraft, legs: Sequence[Leg]) -> Quote | None:
    routes = [find_route(leg.departure, leg.arrival, aircraft.range_km) for leg in legs]
    flown = [route for route in routes if route]
    empty = _positioning(operator, aircraft, legs)
    if len(flown) < len(routes) or empty is None:
        return None
    return Quote(
        id=f"{request.request_id}-{operator.name.split()[0].lower()}",
        operator_name=operator.name,
        price=_price(operator, aircraft, list(zip(legs, flown, strict=True)), empty),
        aircraft=aircraft.name,
        seats=aircraft.seats,
        hours=round(sum(route.hours(aircraft) for route in flown), 1),
        stops=sum(route.stops for route in flown),
        route=" / ".join(map(str, flown)),
    )


def _positioning(operator: Operator, aircraft: Aircraft, legs: Sequence[Leg]) -> float | None:
    """Return the hours of empty flights, from the base and back to it; None if they are out of range."""
    base = atlas().by_code[operator.base]
    ways = [(base, legs[0].departure), (legs[-1].arrival, base)]
    routes = [find_route(start, end, aircraft.range_km) for start, end in ways if start != end]
    if any(route is None for route in routes):
        return None
    return sum(route.hours(aircraft) for route in routes if route)


def _price(operator: Operator, aircraft: Aircraft, flights: Sequence[tuple[Leg, Route]], empty_hours: float) -> int:
    cost = empty_hours * aircraft.euros_per_hour * POSITIONING
    for leg, route in flights:
        factor = WEEKEND if leg.day.weekday() >= 4 else 1.0
        cost += route.hours(aircraft) * aircraft.euros_per_hour * factor + LANDING_EUROS * (route.stops + 1)
    nights = (flights[-1][0].day - flights[0][0].day).days
    cost += NIGHT_EUROS * min(nights, MAX_NIGHTS)
    return round(cost * (1 + operator.margin) / 10) * 10
