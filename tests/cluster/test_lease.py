"""Who leads, on a real API server: one at a time, whoever dies, freezes or is cut off."""

import asyncio
import signal
from pathlib import Path

from agentqueue.clock import monotonic
from tests.support.cluster.kube import Kube, Object
from tests.support.cluster.proxy import ApiProxy
from tests.support.operator import agent_queue
from tests.support.operator_process import OperatorProcess, Operators, operators_of, plain_agent, write_kubeconfig

LEASE = "agentqueue-operator"
WRITES = ("create", "update", "patch", "delete")
REQUESTS = "agentqueue_operator_api_requests_total"


async def holder(kube: Kube) -> str:
    lease = await kube.find("lease", LEASE)
    return str(((lease or {}).get("spec") or {}).get("holderIdentity") or "")


async def leader_of(*operators: OperatorProcess, timeout: float = 40) -> OperatorProcess:
    """The one that leads, once one does; never two."""
    async with asyncio.timeout(timeout):
        while True:
            leading = [operator for operator in operators if await operator.leads()]
            assert len(leading) <= 1
            if leading:
                return leading[0]
            await asyncio.sleep(0.1)


async def test_one_of_two_leads_and_the_other_stands_by_ready(kube: Kube, operators: Operators) -> None:
    first, second = await operators.started(), await operators.started()
    leader = await leader_of(first, second)
    assert (await holder(kube)).startswith(leader.name + "_")
    for operator in (first, second):
        assert await operator.ask("/readyz") == (200, "ready\n")
        assert await operator.ask("/healthz") == (200, "alive\n")
        assert (await operator.ask("/nothing"))[0] == 404


async def test_a_leader_that_ends_hands_over_at_once(kube: Kube, operators: Operators) -> None:
    first = await operators.started()
    await leader_of(first)
    second = await operators.started()
    code, took_s = await first.end()
    assert code == 0, first.log.read_text()
    assert took_s < 2.0
    assert {"lease_released", "stopped"} <= set(first.events())
    began = monotonic()
    await leader_of(second)
    assert monotonic() - began < 6.0  # it looks every two seconds


async def test_a_leader_that_is_killed_is_replaced_within_20_s(kube: Kube, operators: Operators) -> None:
    first = await operators.started()
    await leader_of(first)
    second = await operators.started()
    await first.end(signal.SIGKILL)
    began = monotonic()
    await leader_of(second)
    assert monotonic() - began < 20.0


async def test_a_frozen_leader_writes_nothing_when_it_wakes_up(
    kube: Kube, operators: Operators, api_proxy: ApiProxy, tmp_path: Path, valkey: Object
) -> None:
    behind = await write_kubeconfig(kube, tmp_path / "behind.kubeconfig", api_proxy.url)
    async with operators_of(kube, tmp_path / "behind", behind) as behind_proxy:
        frozen = await behind_proxy.started()
        await leader_of(frozen)
        second = await operators.started()
        api_proxy.hang(verb="patch", path="/deployments/")
        await kube.create(agent_queue(redis=valkey, agents=[plain_agent(), plain_agent("other")]))
        async with asyncio.timeout(30):  # it is in the middle of a reconcile
            while await frozen.total(REQUESTS, verb="patch") < 1:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        frozen.send(signal.SIGSTOP)
        await leader_of(second, timeout=30)
        api_proxy.heal()
        before = {verb: api_proxy.count(verb=verb) for verb in WRITES}
        frozen.send(signal.SIGCONT)
        await frozen.until_logged("not_leading")
        assert not await frozen.leads()
        await kube.until("agentqueue", "demo", lambda found: bool(found.get("status")), what="looked after")
        assert {verb: api_proxy.count(verb=verb) for verb in WRITES} == before
        assert await second.leads()


async def test_a_leader_that_is_cut_off_steps_down_before_another_leads(
    kube: Kube, operators: Operators, api_proxy: ApiProxy, tmp_path: Path
) -> None:
    behind = await write_kubeconfig(kube, tmp_path / "behind.kubeconfig", api_proxy.url)
    async with operators_of(kube, tmp_path / "behind", behind) as behind_proxy:
        cut_off = await behind_proxy.started()
        await leader_of(cut_off)
        second = await operators.started()
        api_proxy.hang()
        assert await leader_of(cut_off, second) is cut_off
        await cut_off.until_logged("not_leading")
        await leader_of(cut_off, second)
        assert await second.leads()
        assert (await cut_off.ask("/healthz"))[0] == 200  # a restart would heal nothing
        api_proxy.heal()
        await asyncio.sleep(3)
        assert await leader_of(cut_off, second) is second
