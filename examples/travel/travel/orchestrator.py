"""Agent that reads a client's message and sends jobs to the other agents."""

from agentqueue import Agent, Context, Fatal, WorkerContext
from travel.airports import atlas
from travel.client_data import remember_trip
from travel.errors import CannotServe
from travel.message import read_message
from travel.payloads import ClientMessage, Trip, TripRequest
from travel.proposal_analysis import propose

agent = Agent("orchestrator")


@agent.startup
async def open_atlas(_ctx: WorkerContext) -> None:
    """Read the airports at the start, so that the first job is not slower."""
    atlas()


@agent.job(timeout=30)
async def plan_trip(ctx: Context, request: ClientMessage) -> Trip:
    """Turn a message into a trip, for `client-data` and `proposal-analysis`."""
    try:
        trip = read_message(request.message, request.received_on, atlas())
    except CannotServe as exc:
        raise Fatal(str(exc)) from exc
    whose = request.model_dump(include={"request_id", "user_id", "priority", "client_email"}, by_alias=False)
    requested = TripRequest(**whose, trip=trip)
    ctx.enqueue(remember_trip, requested, priority="low")
    ctx.enqueue(propose, requested, priority=request.priority)
    ctx.log.info("planned", departure=trip.departure, arrival=trip.arrival, passengers=trip.passengers)
    return trip
