"""Agent that ranks quotes by the client's wish."""

from typing import Any, Final

from agentqueue import Agent, Context
from travel.communication import send_proposal
from travel.payloads import Proposal, Quotes
from travel.ranking import rank

OFFERS: Final = 3

agent = Agent("proposal-analysis")


@agent.job(timeout=30)
async def analyze_quotes(ctx: Context, request: Quotes) -> dict[str, Any]:
    """Choose the best offers; `communication` sends them."""
    offers = rank(request.quotes, request.wish)[:OFFERS]
    proposal = Proposal(
        **request.model_dump(include={"request_id", "user_id", "priority", "summary"}, by_alias=False),
        proposal_id=f"P-{request.request_id}",
        recipient_email=request.client_email,
        offers=offers,
    )
    ctx.enqueue(send_proposal, proposal, priority=request.priority)
    return {"proposalId": proposal.proposal_id, "best": offers[0].operator_name, "considered": len(request.quotes)}
