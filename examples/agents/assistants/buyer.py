"""An agent that buys: it chooses an offer, asks a person above a limit, and pays once, whatever crashes."""

from datetime import timedelta

from pydantic import BaseModel

from agentqueue import Agent, Context, Fatal, NotDone
from assistants.model import choose, services

APPROVAL = "approval"
"""Name of the signal: `agentqueue signal ID approval '{"approved": true}'`."""

agent = Agent("buyer")


class Order(BaseModel):
    """What to buy."""

    item: str
    limit: int
    """Price in euros above which a person is asked."""


class Offer(BaseModel):
    """What the shop sells."""

    item: str
    price: int


class Payment(BaseModel):
    """A payment that was made."""

    id: str
    item: str
    price: int


async def find_offer(item: str) -> Offer:
    """Let the model choose an offer, by a tool call."""
    parameters = {"item": {"type": "string"}, "price": {"type": "integer"}}
    return Offer(**await choose(f"Choose: {item}", "choose_offer", parameters))


async def find_payment(key: str) -> Payment | NotDone:
    """Ask the shop for the payment of an interrupted call, by its idempotency key."""
    async with services() as client:
        response = await client.get("/shop/payments", params={"key": key})
    if response.status_code == 404:
        return NotDone()
    return Payment(**response.raise_for_status().json())


@agent.job(timeout=120, attempts=3)
async def buy(ctx: Context, order: Order) -> Payment:
    """Choose, ask if it is expensive, and pay."""
    offer = await ctx.step("choose", find_offer, order.item)
    if offer.price > order.limit:
        answer = await ctx.wait_for(APPROVAL, timeout=timedelta(hours=48))
        if not answer.data["approved"]:
            raise Fatal(f"{offer.item} for € {offer.price} was rejected by {answer.sender}")

    async def pay(offer: Offer) -> Payment:
        async with services() as client:
            headers = {"Idempotency-Key": ctx.idempotency_key}
            response = await client.post("/shop/payments", json=offer.model_dump(), headers=headers)
        return Payment(**response.raise_for_status().json())

    return await ctx.step("pay", pay, offer, once=True, verify=find_payment)
