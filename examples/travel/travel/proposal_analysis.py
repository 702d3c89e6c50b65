"""Agent that asks for quotes in every market, and ranks them by the client's wish."""

from datetime import timedelta
from typing import Any, Final

from agentqueue import Agent, Context, Fatal
from travel.communication import send_proposal
from travel.fleet import MARKETS
from travel.flight_search import search_flights
from travel.payloads import FlightRequest, Proposal, TripRequest
from travel.ranking import rank

OFFERS: Final = 3
SEARCH_TIMEOUT: Final = timedelta(hours=1)

agent = Agent("proposal-analysis")


@agent.job(timeout=30, attempts=3)
async def propose(ctx: Context, request: TripRequest) -> dict[str, Any]:
    """Search in all markets at the same time, and choose the best offers; `communication` sends them.

    While the searches run, this job waits without a slot. If its worker is killed, the searches are not sent again.
    """
    trip = request.trip.model_dump(by_alias=False)
    whose = request.model_dump(include={"request_id", "user_id", "priority"}, by_alias=False)
    searches = [ctx.child(search_flights, FlightRequest(**whose, **trip, market=market)) for market in MARKETS]
    answers = await ctx.gather(searches, timeout=SEARCH_TIMEOUT)
    quotes = [quote for answer in answers for quote in answer.quotes]
    if not quotes:
        raise Fatal(answers[0].refusal)
    offers = rank(quotes, request.trip.wish)[:OFFERS]
    proposal = Proposal(
        **whose,
        proposal_id=f"P-{request.request_id}",
        recipient_email=request.client_email,
        summary=next(answer.summary for answer in answers if answer.quotes),
        offers=offers,
    )
    ctx.enqueue(send_proposal, proposal, priority=request.priority)
    return {"proposalId": proposal.proposal_id, "best": offers[0].operator_name, "considered": len(quotes)}
