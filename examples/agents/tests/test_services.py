"""The model and the shop of the example, called as the agents call them."""

import httpx
import pytest
from assistants.buyer import Offer, Payment, find_offer, find_payment
from assistants.model import ask
from assistants.services import Fault, Server

from agentqueue import NotDone, Snooze


async def test_the_model_streams_its_answers_and_counts_them(services: Server) -> None:
    assert await ask("Search: tea") == "All about tea."
    assert await ask("Sing: tea") == "I do not know what to do with 'Sing: tea'."
    assert (services.records.prompts["Search: tea"], services.records.model_calls) == (1, 2)


async def test_the_model_answers_at_once_too(services: Server) -> None:
    body = {"model": "mock-1", "messages": [{"role": "user", "content": "Write: tea"}]}
    async with httpx.AsyncClient(base_url=services.url) as client:
        completion = (await client.post("/v1/chat/completions", json=body)).json()
        assert (await client.post("/v1/embeddings", json=body)).status_code == 404
    assert completion["choices"][0] == {
        "index": 0,
        "message": {"role": "assistant", "content": "A report on tea"},
        "finish_reason": "stop",
    }


async def test_the_model_calls_a_tool(services: Server) -> None:
    assert await find_offer("laptop") == Offer(item="laptop", price=1_900)
    assert await find_offer("chair") == Offer(item="chair", price=100)


async def test_a_busy_model_lets_the_job_snooze_and_a_broken_one_lets_it_fail(services: Server) -> None:
    services.records.faults.extend([Fault(429, retry_after=7), Fault(503), Fault(500), Fault(delay=0.01)])
    for after in (7.0, 1.0):
        with pytest.raises(Snooze, match="the model answers") as caught:
            await ask("Search: tea")
        assert caught.value.after == after
    with pytest.raises(httpx.HTTPStatusError, match="500"):
        await ask("Search: tea")
    assert await ask("Search: tea") == "All about tea."


async def test_the_shop_takes_a_payment_once_for_each_key(services: Server) -> None:
    offer = {"item": "laptop", "price": 1_900}
    async with httpx.AsyncClient(base_url=services.url) as client:
        for key in ("a", "a", "b"):
            await client.post("/shop/payments", json=offer, headers={"Idempotency-Key": key})
    assert services.records.payment_calls == 3
    assert await find_payment("a") == Payment(id="pay-1", item="laptop", price=1_900)
    assert isinstance(await find_payment("c"), NotDone)
