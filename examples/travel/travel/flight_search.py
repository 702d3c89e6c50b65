"""Agent that gets a price from every operator."""

from agentqueue import Agent, Context, Fatal, WorkerContext
from travel.airports import Airport, atlas
from travel.errors import CannotServe
from travel.payloads import FlightRequest, Quotes
from travel.pricing import search
from travel.proposal_analysis import analyze_quotes

agent = Agent("flight-search")


@agent.startup
async def open_atlas(_ctx: WorkerContext) -> None:
    """Read the airports at the start, so that the first job is not slower."""
    atlas()


@agent.job(timeout=60, attempts=3)
async def search_flights(ctx: Context, request: FlightRequest) -> Quotes:
    """Price a trip with the fleet; `proposal-analysis` ranks the quotes."""
    await ctx.progress(10, "looking up airports")
    try:
        quotes = search(request)
    except CannotServe as exc:
        raise Fatal(str(exc)) from exc
    found = Quotes(
        **request.model_dump(include={"request_id", "user_id", "priority", "client_email", "wish"}, by_alias=False),
        summary=summarize(request),
        quotes=quotes,
    )
    ctx.enqueue(analyze_quotes, found, priority=request.priority)
    return found


def summarize(request: FlightRequest) -> str:
    """Return the trip on one line: `6 passengers, Berlin (BER) to Lisbon (LIS), Fri 4 Dec 2026, back Sun 6 Dec`."""
    heads = f"{request.passengers} passenger{'s' if request.passengers > 1 else ''}"
    days = [day for day in (request.date, request.return_date) if day]
    when = ", back ".join(f"{day:%a} {day.day} {day:%b %Y}" for day in days)
    route = " to ".join(_describe(atlas().find(place)) for place in (request.departure, request.arrival))
    return f"{heads}, {route}, {when}"


def _describe(airport: Airport) -> str:
    return f"{airport.city or airport.name} ({airport.iata})"
