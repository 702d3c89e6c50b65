"""Airports by city and code, from the `airportsdata` package (7,900 airports with an IATA code)."""

import difflib
import re
import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

import airportsdata

from travel.errors import CannotServe

PREFERRED: Final = {
    "athens": "ATH",
    "bali": "DPS",
    "barcelona": "BCN",
    "berlin": "BER",
    "brussels": "BRU",
    "cannes": "CEQ",
    "chicago": "MDW",
    "copenhagen": "CPH",
    "dubai": "DWC",
    "dublin": "DUB",
    "edinburgh": "EDI",
    "faro": "FAO",
    "florence": "FLR",
    "glasgow": "GLA",
    "hamburg": "HAM",
    "houston": "HOU",
    "istanbul": "IST",
    "las vegas": "LAS",
    "london": "FAB",
    "los angeles": "VNY",
    "madrid": "MAD",
    "malaga": "AGP",
    "manchester": "MAN",
    "melbourne": "MEL",
    "miami": "OPF",
    "milan": "LIN",
    "moscow": "VKO",
    "mykonos": "JMK",
    "new york": "TEB",
    "palm beach": "PBI",
    "palma": "PMI",
    "palma de mallorca": "PMI",
    "paris": "LBG",
    "reykjavik": "KEF",
    "rio de janeiro": "SDU",
    "riyadh": "RUH",
    "rome": "CIA",
    "san jose": "SJC",
    "sao paulo": "GRU",
    "st moritz": "SMV",
    "saint moritz": "SMV",
    "stockholm": "BMA",
    "sydney": "SYD",
    "tokyo": "HND",
    "venice": "VCE",
    "vienna": "VIE",
    "warsaw": "WAW",
    "washington": "IAD",
}
"""The airport for business jets in cities with several airports, or whose name means several cities."""


@dataclass(frozen=True, slots=True)
class Airport:
    """An airport. Its position is in degrees north and east."""

    iata: str
    icao: str
    name: str
    city: str
    country: str
    lat: float
    lon: float


def normalize(place: str) -> str:
    """Return a name in lower case without accents and punctuation: `St. Moritz` -> `st moritz`."""
    bare = unicodedata.normalize("NFKD", place).encode("ascii", "ignore").decode()
    return " ".join(re.findall(r"[a-z0-9]+", bare.casefold()))


@dataclass(frozen=True, slots=True)
class Atlas:
    """All airports, by code and by city."""

    by_code: Mapping[str, Airport]
    by_city: Mapping[str, Sequence[Airport]]

    def knows(self, place: str) -> bool:
        """Return whether `place` is a city, or a code in capitals."""
        return place in self.by_code or normalize(place) in self.by_city

    def find(self, place: str) -> Airport:
        """Return the airport of a code or a city.

        Raises:
            CannotServe: There is none, or more than one. The message has similar names, or the codes to choose from.
        """
        code = self.by_code.get(place.strip().upper())
        found = [code] if code else self.by_city.get(normalize(place), ())
        if len(found) == 1:
            return found[0]
        if found:
            codes = ", ".join(f"{a.iata} ({a.name}, {a.country})" for a in found)
            raise CannotServe(f"{place!r} has several airports; give one of their codes: {codes}")
        near = difflib.get_close_matches(normalize(place), self.by_city, n=3, cutoff=0.6)
        hint = f"did you mean {', '.join(name.title() for name in near)}?" if near else "give its city or code"
        raise CannotServe(f"no airport or city is named {place!r}; {hint}")


@cache
def atlas() -> Atlas:
    """Return the atlas, which is read once per process (0.3 s)."""
    by_code: dict[str, Airport] = {}
    cities: dict[str, list[Airport]] = defaultdict(list)
    for iata, row in airportsdata.load("IATA").items():
        airport = Airport(iata, row["icao"], row["name"], row["city"], row["country"], row["lat"], row["lon"])
        by_code |= {iata: airport, airport.icao: airport}
        cities[normalize(airport.city)].append(airport)
    cities |= {city: [by_code[code]] for city, code in PREFERRED.items()}
    for nameless in ("", *(city for city in cities if len(city) < 3)):
        cities.pop(nameless, None)
    by_code.pop("", None)
    return Atlas(by_code, dict(cities))
