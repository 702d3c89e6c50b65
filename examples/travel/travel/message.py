"""Parser of client messages. It is deterministic: the same message on the same day gives the same trip.

Dates: a weekday is the first one after the anchor; `next` Friday is the Friday of the week after the anchor's (weeks
begin on Monday). The anchor is the day the message came in; for the way back it is the day of the flight out.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import pairwise
from typing import Final

from travel.airports import Atlas
from travel.errors import CannotServe
from travel.payloads import Trip, Wish

NUMBERS: Final = ("", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
WEEKDAYS: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
MONTHS: Final = (
    *("january", "february", "march", "april", "may", "june"),
    *("july", "august", "september", "october", "november", "december"),
)
HINT: Final = 'write it like "6 people Berlin to Lisbon next Friday, back Sunday"'

_NUMBER = rf"(?P<count>\d{{1,5}}|{'|'.join(NUMBERS[1:])})"
_HEADS = r"(?:people|persons?|passengers?|pax|guests?|travell?ers?|adults?|colleagues|executives|of us|seats?)"
_PASSENGERS = (
    re.compile(rf"\b{_NUMBER}\s+{_HEADS}\b", re.IGNORECASE),
    re.compile(rf"\b(?:party|group|team|family) of {_NUMBER}\b", re.IGNORECASE),
    re.compile(rf"\bfor {_NUMBER}\b(?!\s*(?:nights?|days?|hours?|weeks?))", re.IGNORECASE),
    re.compile(r"\b(?P<pair>my (?:wife|husband|partner) and (?:I|me|myself)|a couple)\b", re.IGNORECASE),
    re.compile(r"\b(?P<alone>just me|only me|myself|on my own|alone)\b", re.IGNORECASE),
)
_DAY = r"(?P<day>\d{1,2})(?:st|nd|rd|th)?"
_MONTH = rf"(?P<month>{'|'.join(f'{name[:3]}(?:{name[3:]})?' for name in MONTHS)})"
_WEEKDAYS = "|".join(f"{name[:3]}(?:{name[3:]})?" for name in WEEKDAYS)
_OF_WEEKDAY = rf"\b(?:(?:{_WEEKDAYS}),? (?:the )?)?"
_DATES = (
    re.compile(rf"{_OF_WEEKDAY}(?P<iso>\d{{4}}-\d{{2}}-\d{{2}})\b", re.IGNORECASE),
    re.compile(rf"{_OF_WEEKDAY}{_DAY}(?: of)? {_MONTH}\b\.?(?:,? (?P<year>\d{{4}}))?", re.IGNORECASE),
    re.compile(rf"{_OF_WEEKDAY}{_MONTH}\.? {_DAY}\b(?:,? (?P<year>\d{{4}}))?", re.IGNORECASE),
    re.compile(r"\b(?:in (?P<amount>\d{1,3}) (?P<unit>days?|weeks?))\b", re.IGNORECASE),
    re.compile(rf"\b(?P<which>next |this |coming |on )?(?P<weekday>{_WEEKDAYS})\b", re.IGNORECASE),
    re.compile(r"\b(?P<word>the day after tomorrow|tomorrow|today|the same day|same day)\b", re.IGNORECASE),
)
_WISHES = (
    (Wish.CHEAPEST, re.compile(r"\b(?:cheap(?:est)?|budget|lowest price|best price)\b", re.IGNORECASE)),
    (Wish.FASTEST, re.compile(r"\b(?:fast(?:est)?|quick(?:est)?|as soon as possible)\b", re.IGNORECASE)),
    (Wish.NON_STOP, re.compile(r"\b(?:non-?stop|direct|without (?:a )?(?:fuel )?stops?)\b", re.IGNORECASE)),
)
_TO = re.compile(
    r"\s+to\s+|\s*(?:→|->|[\u2013\u2014])\s*|\s-\s|(?<=\b[A-Z]{3})-(?=[A-Z]{3}\b)|(?<=\b[A-Z]{4})-(?=[A-Z]{4}\b)"
)
_FROM = re.compile(r"\bfrom\s+", re.IGNORECASE)
_WORD = re.compile(r"[^\W\d_][\w.'\u2019/-]*")
_LONGEST_PLACE: Final = 4
_BREAK: Final = " | "
"""Replaces a date or a number of passengers that was read. No place name can extend over it."""


def read_message(message: str, received_on: date, atlas: Atlas) -> Trip:
    """Return the trip that a message requests.

    Raises:
        CannotServe: The route, the passengers or the date are missing, or the dates are not possible.
    """
    passengers, rest = _read_passengers(message)
    days, rest = _read_days(rest, received_on)
    departure, arrival = _read_route(rest, atlas)
    if passengers is None:
        raise CannotServe(f"the message does not say how many fly; {HINT}")
    if not days:
        raise CannotServe(f"the message names no day; {HINT}")
    _check_days(days, received_on)
    return Trip(
        departure=departure,
        arrival=arrival,
        passengers=passengers,
        date=days[0],
        return_date=days[1] if len(days) > 1 else None,
        wish=next((wish for wish, words in _WISHES if words.search(message)), Wish.BALANCED),
    )


def _read_passengers(text: str) -> tuple[int | None, str]:
    for pattern in _PASSENGERS:
        match = pattern.search(text)
        if match:
            return _head_count(match.groupdict()), text[: match.start()] + _BREAK + text[match.end() :]
    return None, text


def _head_count(found: dict[str, str | None]) -> int:
    count = (found.get("count") or "").lower()
    if count:
        return NUMBERS.index(count) if count in NUMBERS else int(count)
    return 2 if found.get("pair") else 1


def _read_days(text: str, received_on: date) -> tuple[list[date], str]:
    """Return at most two days in the order of the text (out and back), and the text without them."""
    days: list[date] = []
    rest = text
    for match in _date_matches(text):
        rest = rest.replace(match.group(), _BREAK, 1)
        if len(days) < 2:
            days.append(_to_day(match, days[0] if days else received_on))
    return days, rest


def _date_matches(text: str) -> list[re.Match[str]]:
    """Return all dates in the text. If two overlap (`Mon` in `Mon 14 Dec`), the first kind in `_DATES` wins.

    "The same day" is always the day of the return flight, even if the day itself follows later in the text.
    """
    taken: list[re.Match[str]] = []
    for pattern in _DATES:
        taken += [m for m in pattern.finditer(text) if all(m.end() <= t.start() or m.start() >= t.end() for t in taken)]
    return sorted(taken, key=lambda match: ("same" in match.group().lower(), match.start()))


def _to_day(match: re.Match[str], anchor: date) -> date:
    found = {name: value.lower() for name, value in match.groupdict().items() if value}
    try:
        return _day_of(found, anchor)
    except (ValueError, OverflowError):
        raise CannotServe(f"there is no such day as {match.group().strip()!r}; write it as YYYY-MM-DD") from None


def _day_of(found: dict[str, str], anchor: date) -> date:
    if "iso" in found:
        return date.fromisoformat(found["iso"])
    if "month" in found:
        return _calendar_day(found, anchor)
    if "amount" in found:
        return anchor + timedelta(**{"days" if found["unit"].startswith("day") else "weeks": int(found["amount"])})
    if "weekday" in found:
        return _weekday(found["weekday"], anchor, after_this_week=found.get("which") == "next ")
    ahead = {"today": 0, "the same day": 0, "same day": 0, "tomorrow": 1, "the day after tomorrow": 2}
    return anchor + timedelta(days=ahead[found["word"]])


def _calendar_day(found: dict[str, str], anchor: date) -> date:
    month = next(i for i, name in enumerate(MONTHS, start=1) if name.startswith(found["month"][:3]))
    day = date(int(found.get("year", anchor.year)), month, int(found["day"]))
    if "year" in found or day >= anchor:
        return day
    return day.replace(year=anchor.year + 1)


def _weekday(name: str, anchor: date, *, after_this_week: bool) -> date:
    wanted = next(i for i, weekday in enumerate(WEEKDAYS) if weekday.startswith(name[:3]))
    if after_this_week:
        return anchor + timedelta(days=7 - anchor.weekday() + wanted)
    return anchor + timedelta(days=(wanted - anchor.weekday() - 1) % 7 + 1)


def _check_days(days: list[date], received_on: date) -> None:
    if days[0] < received_on:
        raise CannotServe(f"the flight's day, {days[0]}, is past (the message is of {received_on}); give a later day")
    for out, back in pairwise(days):
        if back < out:
            raise CannotServe(f"the way back, {back}, is before the flight out, {out}; give a later day")


@dataclass(frozen=True, slots=True)
class _Place:
    name: str
    known: bool


def _read_route(text: str, atlas: Atlas) -> tuple[str, str]:
    """Return departure and arrival as the client wrote them. A name that is not in the atlas must be capitalised."""
    found = list(_routes(text, atlas))
    if not found:
        raise CannotServe(f"the message names no route; {HINT}")
    departure, arrival = max(found, key=lambda pair: pair[0].known + pair[1].known)
    return departure.name, arrival.name


def _routes(text: str, atlas: Atlas) -> Iterator[tuple[_Place, _Place]]:
    starts = [_place_after(text[match.end() :], atlas) for match in _FROM.finditer(text)]
    for match in _TO.finditer(text):
        arrival = _place_after(text[match.end() :], atlas)
        departures = [_place_before(text[: match.start()], atlas), *starts]
        for departure in departures:
            if departure and arrival:
                yield departure, arrival


def _place_after(text: str, atlas: Atlas) -> _Place | None:
    words: list[re.Match[str]] = []
    for match in _WORD.finditer(text):
        gap = text[words[-1].end() : match.start()] if words else text[: match.start()]
        if gap.strip() or len(words) == _LONGEST_PLACE:
            break
        words.append(match)
    names = [_clean(text[words[0].start() : word.end()]) for word in reversed(words)]
    return _choose(names, atlas)


def _place_before(text: str, atlas: Atlas) -> _Place | None:
    tail = re.split(r"[^\w\s.'\u2019/-]|\d", text)[-1].split()[-_LONGEST_PLACE:]
    return _choose([_clean(" ".join(tail[start:])) for start in range(len(tail))], atlas)


def _clean(name: str) -> str:
    return name.strip(" .,;-'\u2019/")


def _choose(names: list[str], atlas: Atlas) -> _Place | None:
    """Return the longest known name, else the longest name in which every word is capitalised."""
    for name in names:
        if atlas.knows(name):
            return _Place(name, known=True)
    for name in names:
        if name and all(word[0].isupper() for word in name.split()):
            return _Place(name, known=False)
    return None
