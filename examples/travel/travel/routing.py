"""Distances on great circles, and fuel stops."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Final

from travel.airports import Airport, atlas
from travel.fleet import TECH_STOPS, Aircraft

EARTH_RADIUS_KM: Final = 6_371.0
MAX_STOPS: Final = 2
HOURS_PER_LEG: Final = 0.4
"""Hours for taxiing, climb and approach, in addition to the flight at cruise speed."""
HOURS_PER_STOP: Final = 0.75


def distance_km(a: Airport, b: Airport) -> float:
    """Return the great-circle distance in km (haversine formula)."""
    lat_a, lat_b = math.radians(a.lat), math.radians(b.lat)
    half_lat, half_lon = (lat_b - lat_a) / 2, math.radians(b.lon - a.lon) / 2
    chord = math.sin(half_lat) ** 2 + math.cos(lat_a) * math.cos(lat_b) * math.sin(half_lon) ** 2
    return 2 * EARTH_RADIUS_KM * math.asin(math.sqrt(chord))


@dataclass(frozen=True, slots=True)
class Route:
    """The airports of a flight in order: departure, fuel stops, arrival."""

    airports: tuple[Airport, ...]

    @property
    def km(self) -> float:
        """Length of all legs, in km."""
        return sum(distance_km(a, b) for a, b in pairwise(self.airports))

    @property
    def stops(self) -> int:
        """Number of fuel stops."""
        return len(self.airports) - 2

    def hours(self, aircraft: Aircraft) -> float:
        """Return the hours from the first departure to the last arrival, fuel stops included."""
        flying = self.km / aircraft.cruise_kmh + HOURS_PER_LEG * (self.stops + 1)
        return flying + HOURS_PER_STOP * self.stops

    def __str__(self) -> str:
        return "-".join(airport.iata for airport in self.airports)


@lru_cache(maxsize=4_096)
def find_route(departure: Airport, arrival: Airport, range_km: int) -> Route | None:
    """Return the shortest route with the fewest fuel stops and all legs within range; None if there is none."""
    for stops in range(MAX_STOPS + 1):
        routes = list(_routes(departure, arrival, range_km, stops))
        if routes:
            return min(routes, key=lambda route: route.km)
    return None


def _routes(departure: Airport, arrival: Airport, range_km: int, stops: int) -> Iterator[Route]:
    if stops == 0:
        if distance_km(departure, arrival) <= range_km:
            yield Route((departure, arrival))
        return
    for code in TECH_STOPS:
        stop = atlas().by_code[code]
        if stop not in (departure, arrival) and distance_km(departure, stop) <= range_km:
            for rest in _routes(stop, arrival, range_km, stops - 1):
                yield Route((departure, *rest.airports))
