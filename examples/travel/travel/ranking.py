"""What makes one quote better than another."""

from collections.abc import Callable, Iterable
from typing import Final

from travel.payloads import Quote, Wish

HOUR_EUROS: Final = 1_000
"""What an hour is worth to a client who wishes nothing special; a fuel stop costs as much in comfort."""

ORDERS: Final[dict[Wish, Callable[[Quote], tuple[float, ...]]]] = {
    Wish.BALANCED: lambda quote: (quote.price + HOUR_EUROS * (quote.hours + quote.stops),),
    Wish.CHEAPEST: lambda quote: (quote.price,),
    Wish.FASTEST: lambda quote: (quote.hours, quote.price),
    Wish.NON_STOP: lambda quote: (quote.stops, quote.price),
}


def rank(quotes: Iterable[Quote], wish: Wish) -> list[Quote]:
    """Best first. Equal ones by id, so that a rerun ranks them the same."""
    return sorted(quotes, key=lambda quote: (*ORDERS[wish](quote), quote.id))
