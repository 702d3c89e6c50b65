"""The operators that the broker works with, and their aircraft. Figures are rounded from the makers' brochures."""

from dataclasses import dataclass
from typing import Final

from travel.payloads import Market


@dataclass(frozen=True, slots=True)
class Aircraft:
    """A type of aircraft. `range_km` is its range with all seats taken, less reserves."""

    name: str
    seats: int
    range_km: int
    cruise_kmh: int
    euros_per_hour: int


@dataclass(frozen=True, slots=True)
class Operator:
    """A company with aircraft at one base."""

    name: str
    base: str
    """IATA code."""
    aircraft: tuple[Aircraft, ...]
    margin: float
    """Profit as a fraction of the cost."""


PHENOM_100: Final = Aircraft("Embraer Phenom 100EV", 4, 1_900, 720, 2_300)
CITATION_CJ3: Final = Aircraft("Cessna Citation CJ3+", 7, 3_000, 750, 3_000)
PC_24: Final = Aircraft("Pilatus PC-24", 8, 3_300, 790, 3_200)
PHENOM_300: Final = Aircraft("Embraer Phenom 300E", 8, 3_400, 830, 3_400)
CITATION_LATITUDE: Final = Aircraft("Cessna Citation Latitude", 9, 5_000, 820, 4_300)
CHALLENGER_350: Final = Aircraft("Bombardier Challenger 350", 9, 5_900, 850, 5_400)
FALCON_2000: Final = Aircraft("Dassault Falcon 2000LXS", 10, 7_400, 850, 6_200)
LEGACY_650: Final = Aircraft("Embraer Legacy 650", 13, 7_200, 830, 6_800)
GLOBAL_6000: Final = Aircraft("Bombardier Global 6000", 14, 11_100, 900, 9_200)
GULFSTREAM_G650: Final = Aircraft("Gulfstream G650ER", 16, 13_000, 920, 10_800)
DORNIER_328: Final = Aircraft("Dornier 328JET", 30, 2_700, 740, 6_100)
ACJ319: Final = Aircraft("Airbus ACJ319", 50, 9_500, 830, 15_500)

EUROPE: Final = (
    Operator("Alpenwind Aviation", "ZRH", (PC_24, CITATION_CJ3), 0.12),
    Operator("Channel Executive", "FAB", (PHENOM_100, PHENOM_300, LEGACY_650), 0.1),
    Operator("Danube Charter", "VIE", (CITATION_LATITUDE, FALCON_2000), 0.11),
    Operator("Iberia Privada", "MAD", (CITATION_CJ3, CHALLENGER_350, DORNIER_328), 0.13),
    Operator("Nordlys Jet", "CPH", (PHENOM_300, CHALLENGER_350), 0.14),
    Operator("Spree Air", "BER", (PHENOM_100, CITATION_CJ3, GLOBAL_6000, DORNIER_328), 0.1),
)
OVERSEAS: Final = (
    Operator("Atlantic Crest", "TEB", (CITATION_LATITUDE, CHALLENGER_350, GULFSTREAM_G650), 0.15),
    Operator("Gulf Meridian", "DWC", (LEGACY_650, GLOBAL_6000, ACJ319), 0.18),
)
MARKETS: Final = {Market.EUROPE: EUROPE, Market.OVERSEAS: OVERSEAS}
"""Operators by market. `proposal-analysis` lets `flight-search` ask each market."""
FLEET: Final = (*EUROPE, *OVERSEAS)

TECH_STOPS: Final = (
    *("BGR", "YQX", "YYR", "KEF", "SNN", "PIK", "SMA"),  # the North Atlantic
    *("BGI", "PTY", "BOG", "REC", "MIA", "LAX", "VNY", "ANC", "HNL"),  # the Americas
    *("DKR", "CAI", "NBO", "LAD"),  # Africa
    *("DWC", "KHI", "BOM", "CMB", "TAS", "ALA", "SIN", "MNL", "GUM"),  # Asia
    *("DPS", "PER", "NAN", "PPT"),  # Australia and the Pacific
)
"""Airports where long-range charters refuel."""
