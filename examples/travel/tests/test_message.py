"""Messages of clients and the trips in them. All messages arrive on Wednesday, 2 December 2026."""

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st
from travel.airports import atlas
from travel.errors import CannotServe
from travel.message import read_message
from travel.payloads import Trip, Wish

TODAY = dt.date(2026, 12, 2)


def read(message: str) -> Trip:
    return read_message(message, TODAY, atlas())


def dec(day: int) -> dt.date:
    return dt.date(2026, 12, day)


@pytest.mark.parametrize(
    ("message", "departure", "arrival", "passengers", "out", "back"),
    [
        ("6 people Berlin to Lisbon next Friday, back Sunday", "Berlin", "Lisbon", 6, dec(11), dec(13)),
        ("LIN-TEB tomorrow, just me", "LIN", "TEB", 1, dec(3), None),
        ("EDDB → LPPT, 4 pax, 2026-12-10", "EDDB", "LPPT", 4, dec(10), None),
        ("7 seats Zurich - Vienna, Thursday; return Friday", "Zurich", "Vienna", 7, dec(3), dec(4)),
        ("3 guests berlin to lisbon friday", "berlin", "lisbon", 3, dec(4), None),
        ("A jet to Nice from Geneva for my wife and I this Saturday", "Geneva", "Nice", 2, dec(5), None),
        ("a party of eight: London to St. Moritz on 19 December", "London", "St. Moritz", 8, dec(19), None),
        ("Palma de Mallorca to Munich today for 4", "Palma de Mallorca", "Munich", 4, dec(2), None),
        ("two of us from São Paulo to Rio de Janeiro, Dec 24th", "São Paulo", "Rio de Janeiro", 2, dec(24), None),
        ("Warsaw to Tel Aviv, Mon 14 Dec, back Thu, 10 adults", "Warsaw", "Tel Aviv", 10, dec(14), dec(17)),
        ("Copenhagen to Oslo and back the same day, 9 Dec, for 6", "Copenhagen", "Oslo", 6, dec(9), dec(9)),
        (
            "Oslo to Innsbruck, 26 Dec, return January 2nd, 5 people",
            "Oslo",
            "Innsbruck",
            5,
            dec(26),
            dt.date(2027, 1, 2),
        ),
        ("Boston to Reykjavik in 3 days, 5 people", "Boston", "Reykjavik", 5, dec(5), None),
        ("Boston to Reykjavik in 2 weeks, 5 people", "Boston", "Reykjavik", 5, dec(16), None),
        ("2 people Porto to Faro the day after tomorrow", "Porto", "Faro", 2, dec(4), None),
        ("2 people from Atlantis to Lisbon tomorrow", "Atlantis", "Lisbon", 2, dec(3), None),
        ("for two nights, Paris to Rome for 5, 10 December", "Paris", "Rome", 5, dec(10), None),
    ],
)
def test_a_message_is_read(
    message: str, departure: str, arrival: str, passengers: int, out: dt.date, back: dt.date | None
) -> None:
    trip = read(message)
    found = (trip.departure, trip.arrival, trip.passengers, trip.date, trip.return_date)
    assert found == (departure, arrival, passengers, out, back)


@pytest.mark.parametrize(
    ("message", "because"),
    [
        ("asdf qwer !!! ???", "names no route"),
        ("6 people Berlin to", "names no route"),
        ("Berlin to Lisbon tomorrow", "how many fly"),
        ("6 people Berlin to Lisbon", "names no day"),
        ("6 people Berlin to Lisbon on 2026-11-01", "2026-11-01, is past"),
        ("6 people Berlin to Lisbon on 31 February", "no such day as '31 February'"),
        ("6 people Berlin to Lisbon on 2026-13-01", "no such day as '2026-13-01'"),
        ("6 people Berlin to Lisbon 20 December, back 2026-12-10", "before the flight out"),
    ],
)
def test_what_can_not_be_read_is_refused_with_a_reason(message: str, because: str) -> None:
    with pytest.raises(CannotServe, match=because):
        read(message)


@pytest.mark.parametrize(
    ("words", "wish"),
    [
        ("", Wish.BALANCED),
        ("cheapest please", Wish.CHEAPEST),
        ("as fast as possible", Wish.FASTEST),
        ("no fuel stops: non-stop", Wish.NON_STOP),
        ("direct", Wish.NON_STOP),
    ],
)
def test_a_wish_is_heard(words: str, wish: Wish) -> None:
    assert read(f"6 people Berlin to Lisbon tomorrow, {words}").wish is wish


@given(st.text(max_size=300))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        trip = read(text)
    except CannotServe:
        return
    assert trip.date >= TODAY


@given(st.integers(0, 6), st.dates(dt.date(2026, 1, 1), dt.date(2030, 12, 31)))
def test_a_weekday_is_within_a_week_and_the_next_one_is_of_the_week_after(weekday: int, today: dt.date) -> None:
    name = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")[weekday]
    soon, later = (
        read_message(f"2 people Berlin to Lisbon {which}{name}", today, atlas()).date for which in ("on ", "next ")
    )
    assert soon.weekday() == later.weekday() == weekday
    assert 1 <= (soon - today).days <= 7
    assert later.isocalendar()[:2] == (today + dt.timedelta(weeks=1)).isocalendar()[:2]
