"""Agent that gets prices from the operators of a market."""

from agentqueue import Agent, Context, WorkerContext
from travel.airports import Airport, atlas
from travel.errors import CannotServe
from travel.payloads import FlightRequest, Quotes
from travel.pricing import search

agent = Agent("flight-search")


@agent.startup
async def open_atlas(_ctx: WorkerContext) -> None:
    """Read the airports at the start, so that the first job is not slower."""
    atlas()


@agent.job(timeout=60, attempts=3)
async def search_flights(ctx: Context, request: FlightRequest) -> Quotes:
    """Price a trip with the aircraft of a market.

    A refusal is a result and not an error: the job that asked decides what it means, as another market may have offers.
    """
    await ctx.progress(10, "looking up airports")
    try:
        return Quotes(quotes=search(request), summary=summarize(request))
    except CannotServe as exc:
        return Quotes(refusal=str(exc))


def summarize(request: FlightRequest) -> str:
    """Return the trip on one line: `6 passengers, Berlin (BER) to Lisbon (LIS), Fri 4 Dec 2026, back Sun 6 Dec`."""
    heads = f"{request.passengers} passenger{'s' if request.passengers > 1 else ''}"
    days = [day for day in (request.date, request.return_date) if day]
    when = ", back ".join(f"{day:%a} {day.day} {day:%b %Y}" for day in days)
    route = " to ".join(_describe(atlas().find(place)) for place in (request.departure, request.arrival))
    return f"{heads}, {route}, {when}"


def _describe(airport: Airport) -> str:
    return f"{airport.city or airport.name} ({airport.iata})"
