"""The agent `buyer`, on a real server: approvals, and payments that are made once."""

import asyncio
from datetime import timedelta

import pytest
from assistants import buyer
from assistants.buyer import APPROVAL, Order, Payment
from assistants.services import Server

from agentqueue.errors import JobFailed
from agentqueue.testing import Sandbox

LAPTOP = Payment(id="pay-1", item="laptop", price=1_900)


async def test_a_cheap_thing_is_bought_at_once(services: Server) -> None:
    async with Sandbox(buyer.agent) as box:
        job = await box.client.enqueue(buyer.buy, Order(item="pencil", limit=500))
        assert await job.result() == Payment(id="pay-1", item="pencil", price=2)


async def test_a_crash_in_the_middle_of_the_payment_pays_once_and_finds_the_payment(services: Server) -> None:
    services.records.payment_delay = 5
    async with Sandbox(buyer.agent) as box:
        job = await box.client.enqueue(buyer.buy, Order(item="pencil", limit=500))
        result = asyncio.create_task(job.result(timeout=30))
        while services.records.payment_calls == 0:
            await asyncio.to_thread(services.records.wait)
        await box.crash()
        assert await result == Payment(id="pay-1", item="pencil", price=2)
        assert (await job.status()).deliveries == 2
    assert (services.records.model_calls, services.records.payment_calls) == (1, 1)


async def test_an_expensive_one_waits_for_a_person_without_a_slot(services: Server) -> None:
    async with Sandbox(buyer.agent) as box:
        job = await box.client.enqueue(buyer.buy, Order(item="laptop", limit=500))
        await box.run_until_idle()
        assert (await job.status()).state == "suspended"
        assert services.records.payment_calls == 0
        await box.signal(job, APPROVAL, {"approved": True}, sender="ana")
        assert await job.result() == LAPTOP
    assert (services.records.model_calls, services.records.payment_calls) == (1, 1)


async def test_a_rejected_one_is_a_dead_letter_that_names_the_person(services: Server) -> None:
    async with Sandbox(buyer.agent) as box:
        job = await box.client.enqueue(buyer.buy, Order(item="laptop", limit=500))
        await box.signal(job, APPROVAL, {"approved": False}, sender="ana")  # before the job waits: it is kept
        with pytest.raises(JobFailed, match="laptop for € 1900 was rejected by ana"):
            await job.result()
    assert services.records.payment_calls == 0


async def test_without_an_answer_the_order_ends_after_two_days(services: Server) -> None:
    async with Sandbox(buyer.agent) as box:
        job = await box.client.enqueue(buyer.buy, Order(item="laptop", limit=500), attempts=1)
        await box.run_until_idle()
        await box.advance(timedelta(hours=47))
        await box.run_until_idle()
        assert (await job.status()).state == "suspended"
        await box.advance(timedelta(hours=2))
        with pytest.raises(JobFailed, match="TimeoutError"):
            await job.result()
    assert services.records.payment_calls == 0
