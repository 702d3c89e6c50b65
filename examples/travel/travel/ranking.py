"""Order of quotes by the client's wish."""

from collections.abc import Callable, Iterable
from typing import Final

from travel.payloads import Quote, Wish

HOUR_EUROS: Final = 1_000
"""Value of an hour in euros, for a client without a special wish. A fuel stop counts the same."""

ORDERS: Final[dict[Wish, Callable[[Quote], tuple[float, ...]]]] = {
    Wish.BALANCED: lambda quote: (quote.price + HOUR_EUROS * (quote.hours + quote.stops),),
    Wish.CHEAPEST: lambda quote: (quote.price,),
    Wish.FASTEST: lambda quote: (quote.hours, quote.price),
    Wish.NON_STOP: lambda quote: (quote.stops, quote.price),
}


def rank(quotes: Iterable[Quote], wish: Wish) -> list[Quote]:
    """Return the quotes, best first. Equal ones are ordered by ID, so that a rerun gives the same order."""
    return sorted(quotes, key=lambda quote: (*ORDERS[wish](quote), quote.id))
