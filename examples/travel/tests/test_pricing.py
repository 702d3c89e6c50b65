"""Airports, routes and prices."""

import datetime as dt
from itertools import pairwise
from typing import Any

import pytest
from travel.airports import Airport, atlas, normalize
from travel.errors import CannotServe
from travel.fleet import FLEET, TECH_STOPS
from travel.payloads import FlightRequest, Quote, Wish
from travel.pricing import search
from travel.ranking import rank
from travel.routing import distance_km, find_route


def request(departure: str, arrival: str, passengers: int = 4, **more: Any) -> FlightRequest:
    fields = {"request_id": "R-1", "user_id": "u", "date": dt.date(2026, 12, 9)} | more
    return FlightRequest(departure=departure, arrival=arrival, passengers=passengers, **fields)


def airport(place: str) -> Airport:
    return atlas().find(place)


@pytest.mark.parametrize(
    ("place", "iata"),
    [
        ("Berlin", "BER"),
        ("berlin", "BER"),
        ("EDDB", "BER"),
        ("ber", "BER"),
        ("São Paulo", "GRU"),
        ("St. Moritz", "SMV"),
        ("Luxembourg", "LUX"),
    ],
)
def test_a_place_is_found_by_city_and_by_code(place: str, iata: str) -> None:
    assert airport(place).iata == iata


def test_an_unknown_place_is_answered_with_near_ones() -> None:
    with pytest.raises(CannotServe, match="'Lisbonn'; did you mean Lisbon"):
        airport("Lisbonn")


def test_a_place_like_no_other_is_refused_too() -> None:
    with pytest.raises(CannotServe, match="give its city or code"):
        airport("Zzyzx Qwrtpsdf")


def test_a_city_with_several_airports_asks_for_a_code() -> None:
    with pytest.raises(CannotServe, match="several airports; give one of their codes"):
        airport("Springfield")


def test_every_place_the_broker_names_exists() -> None:
    codes = {*TECH_STOPS, *(operator.base for operator in FLEET)}
    assert codes <= set(atlas().by_code)


@pytest.mark.parametrize(
    ("start", "end", "km"),
    [("BER", "LIS", 2_310), ("LHR", "JFK", 5_540), ("SYD", "SIN", 6_300), ("NAN", "HNL", 5_100)],
)
def test_distances_are_the_real_ones(start: str, end: str, km: int) -> None:
    assert distance_km(airport(start), airport(end)) == pytest.approx(km, rel=0.01)


def test_a_long_way_has_fuel_stops_and_no_leg_beyond_the_range() -> None:
    route = find_route(airport("FAB"), airport("TEB"), 5_000)
    assert route is not None
    assert route.stops == 1
    assert all(distance_km(a, b) <= 5_000 for a, b in pairwise(route.airports))
    assert route.km >= distance_km(airport("FAB"), airport("TEB"))


def test_a_way_beyond_two_fuel_stops_is_none() -> None:
    assert find_route(airport("BER"), airport("SYD"), 2_000) is None


def test_each_operator_offers_once_and_the_same_again() -> None:
    asked = request("Berlin", "Lisbon", 6, return_date=dt.date(2026, 12, 13))
    quotes = search(asked)
    assert quotes == search(asked)
    assert len({quote.operator_name for quote in quotes}) == len(quotes) == len(FLEET)
    assert all(quote.seats >= 6 and quote.price > 5_000 for quote in quotes)


def test_the_way_back_and_the_weekend_cost_more() -> None:
    def cheapest(**more: Any) -> int:
        return min(quote.price for quote in search(request("Berlin", "Lisbon", **more)))

    wednesday, friday = dt.date(2026, 12, 9), dt.date(2026, 12, 11)
    assert cheapest(date=wednesday) < cheapest(date=friday)
    assert cheapest(date=wednesday) < cheapest(date=wednesday, return_date=dt.date(2026, 12, 10))


def test_an_operator_offers_the_aircraft_that_suits_the_wish() -> None:
    def best(wish: Wish) -> Quote:
        return rank(search(request("Milan", "New York", 1, wish=wish)), wish)[0]

    assert best(Wish.NON_STOP).stops == 0
    assert best(Wish.CHEAPEST).price < best(Wish.NON_STOP).price
    assert best(Wish.FASTEST).hours <= best(Wish.CHEAPEST).hours
    assert best(Wish.BALANCED).price <= best(Wish.FASTEST).price


@pytest.mark.parametrize(
    ("asked", "because"),
    [
        (request("Atlantis", "Lisbon"), "no airport or city is named 'Atlantis'"),
        (request("Berlin", "Lisbon", 220), "220 passengers are more than any aircraft"),
        (request("Berlin", "EDDB"), "the same airport"),
        (request("Berlin", "Sydney", 28), None),
    ],
)
def test_what_no_aircraft_can_do_is_refused_with_a_reason(asked: FlightRequest, because: str | None) -> None:
    if because is None:  # 28 seats over 16,000 km: only the ACJ319 can
        assert {quote.aircraft for quote in search(asked)} == {"Airbus ACJ319"}
        return
    with pytest.raises(CannotServe, match=because):
        search(asked)


def test_names_are_compared_without_accents_and_case() -> None:
    assert normalize("  SÃO-Paulo. ") == "sao paulo"
