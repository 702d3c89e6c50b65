"""The operator as a process: its beginning and end, its probes, and what it survives."""

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path

from agentqueue.clock import monotonic
from tests.support.cluster.faults import Faults
from tests.support.cluster.kube import Kube, Object, has_condition
from tests.support.cluster.proxy import ApiProxy
from tests.support.operator import CRD, agent_queue, install_crd
from tests.support.operator_process import OperatorProcess, Operators, operators_of, plain_agent, write_kubeconfig

READY = has_condition("Ready")
WRITES = ("create", "update", "patch", "delete")
NO_LEASE = "^(?!.*/leases)"
LABEL = "agentqueue.dev/queue=demo"


async def served(kube: Kube, redis: Object, *agents: Object) -> str:
    """An AgentQueue that is Ready; returns its first Deployment's name."""
    await kube.create(agent_queue(redis=redis, agents=list(agents) or [plain_agent()]))
    await kube.until("agentqueue", "demo", READY)
    return str((await kube.list("deployment", labels=LABEL))[0]["metadata"]["name"])


async def until(holds: Callable[[], object], *, timeout: float = 60) -> None:
    """Wait for something that no event tells of."""
    async with asyncio.timeout(timeout):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def heals(kube: Kube, operator: OperatorProcess, number: str) -> None:
    """A change is carried out."""
    changed = plain_agent(env=[{"name": "CHANGE", "value": number}])
    await kube.patch("agentqueue", "demo", {"spec": {"agents": [changed]}})
    (deployment,) = await kube.list("deployment", labels=LABEL)
    await kube.until("deployment", deployment["metadata"]["name"], lambda found: number in str(found["spec"]))
    assert operator.process.returncode is None


async def test_a_queue_is_served_with_the_declared_rights_alone(
    kube: Kube, operators: Operators, valkey: Object
) -> None:
    operator = await operators.started()
    await served(kube, valkey)
    assert "watch_failed" not in operator.events()
    found = await operator.metrics()
    labels = f'agent="greetings",agentqueue="demo",namespace="{kube.namespace}",queue="greetings"'
    assert found[f"agentqueue_queue_waiting_jobs{{{labels}}}"] == 0.0
    assert found[f"agentqueue_agent_desired_replicas{{{labels}}}"] == 0.0
    assert found["agentqueue_operator_agentqueues"] == 1.0
    assert found["agentqueue_operator_reconcile_duration_seconds_count"] >= 1.0
    refused = {key: n for key, n in found.items() if "agentqueue_operator_api_requests_total" in key and '"403"' in key}
    assert refused, "the counters of refusals are there from the start"
    assert not any(refused.values()), refused


async def test_without_the_right_to_list_secrets_it_serves_too(
    kube: Kube, operators: Operators, valkey: Object
) -> None:
    operator = await operators.started(read_secrets="false")
    await served(kube, valkey)
    assert 'resource="secrets"' not in str([line for line in operator.lines() if line["event"] == "watch_failed"])


async def test_sigterm_ends_it_within_two_seconds_also_in_the_middle_of_work(
    kube: Kube, operators: Operators, valkey: Object
) -> None:
    operator = await operators.started()
    await operator.until("agentqueue_operator_leader")
    for number in range(5):
        await kube.create(agent_queue(f"demo-{number}", redis=valkey, agents=[plain_agent(queueName=f"q{number}")]))
    await operator.until("agentqueue_operator_leader")
    code, took_s = await operator.end()
    assert (code, took_s < 2.0) == (0, True), operator.log.read_text()
    lease = await kube.get("lease", "agentqueue-operator")
    assert lease["spec"]["holderIdentity"] == ""
    assert "Traceback" not in operator.log.read_text()


async def test_sigterm_while_it_is_still_importing_ends_it_at_once(operators: Operators) -> None:
    operator = await operators.start()
    handled = f"/proc/{operator.pid}/status"
    await until(lambda: _catches_sigterm(handled))
    code, took_s = await operator.end()
    assert (code, took_s < 2.0) == (0, True)


def _catches_sigterm(status: str) -> bool:
    lines = Path(status).read_text().splitlines()
    caught = next(line.split()[1] for line in lines if line.startswith("SigCgt"))
    return bool(int(caught, 16) & 1 << (signal.SIGTERM - 1))


async def test_it_waits_for_the_definition_and_says_so(kube: Kube, operators: Operators, valkey: Object) -> None:
    await kube.request("DELETE", CRD)
    await until_gone(kube)
    operator = await operators.start()
    await operator.until_logged("watch_failed", timeout=90)
    status, text = await operator.ask("/readyz")
    assert (status, "install the AgentQueue CRD" in text) == (503, True)
    assert (await operator.ask("/healthz"))[0] == 200
    await install_crd(kube)
    await operator.until()
    await served(kube, valkey)


async def until_gone(kube: Kube) -> None:
    async with asyncio.timeout(60):
        while await _crd_is_there(kube):  # noqa: ASYNC110
            await asyncio.sleep(0.1)


async def _crd_is_there(kube: Kube) -> bool:
    found = await kube.request("GET", CRD.rpartition("/")[0])
    return any(item["metadata"]["name"] == CRD.rpartition("/")[2] for item in found["items"])


async def test_at_rest_it_writes_nothing_but_its_lease_and_asks_little(
    kube: Kube, operators: Operators, api_proxy: ApiProxy, tmp_path: Path, valkey: Object
) -> None:
    behind = await write_kubeconfig(kube, tmp_path / "behind.kubeconfig", api_proxy.url)
    async with operators_of(kube, tmp_path / "behind", behind) as behind_proxy:
        await behind_proxy.started()
        await served(kube, valkey)
        await asyncio.sleep(6)  # a last look at what it has made itself
        asked, written = api_proxy.count(), {verb: api_proxy.count(verb=verb, path=NO_LEASE) for verb in WRITES}
        await asyncio.sleep(30)
        assert {verb: api_proxy.count(verb=verb, path=NO_LEASE) for verb in WRITES} == written
        assert api_proxy.count() - asked < 80  # the Lease's 30, and a listing of each kind


async def test_an_api_server_that_is_away_for_a_while_is_waited_for(
    kube: Kube, operators: Operators, faults: Faults, valkey: Object
) -> None:
    operator = await operators.started()
    await served(kube, valkey)
    async with faults.stopped("kube-apiserver"):
        for _ in range(15):
            assert (await operator.ask("/healthz"))[0] == 200
            await asyncio.sleep(1)
    await heals(kube, operator, "after-the-outage")
    await operator.until("agentqueue_operator_leader")


async def test_what_went_while_the_watches_were_cut_is_noticed_and_made_anew(
    kube: Kube, operators: Operators, api_proxy: ApiProxy, tmp_path: Path, valkey: Object
) -> None:
    behind = await write_kubeconfig(kube, tmp_path / "behind.kubeconfig", api_proxy.url)
    async with operators_of(kube, tmp_path / "behind", behind) as behind_proxy:
        operator = await behind_proxy.started()
        name = await served(kube, valkey)
        before = (await kube.get("deployment", name))["metadata"]["uid"]
        api_proxy.fail(410, verb="watch", times=40)  # what a watch could resume from is gone
        api_proxy.cut_watches()
        await kube.delete("deployment", name)
        await kube.until(
            "deployment", name, lambda found: found["metadata"]["uid"] != before, timeout=90, what="another"
        )
        api_proxy.heal()
        await heals(kube, operator, "after-the-cut")


async def test_watches_that_break_off_again_and_again_do_no_harm(
    kube: Kube, operators: Operators, api_proxy: ApiProxy, tmp_path: Path, valkey: Object
) -> None:
    behind = await write_kubeconfig(kube, tmp_path / "behind.kubeconfig", api_proxy.url)
    async with operators_of(kube, tmp_path / "behind", behind) as behind_proxy:
        operator = await behind_proxy.started()
        await served(kube, valkey)
        for number in range(6):
            (api_proxy.cut_watches if number % 2 else api_proxy.expire_watches)()
            await heals(kube, operator, f"change-{number}")
        assert (await operator.metrics())["agentqueue_operator_watches_down"] == 0.0


async def test_rights_taken_away_are_told_and_all_heals_when_they_are_given_back(
    kube: Kube, operators: Operators, valkey: Object
) -> None:
    operator = await operators.started()
    await served(kube, valkey)
    role = await kube.get("role", "operator")
    kept = [rule for rule in role["rules"] if rule["resources"] != ["pods"]]
    await kube.patch("role", "operator", {"rules": kept})
    await operator.until("agentqueue_operator_watches_down", timeout=150)
    warned = has_condition("ConfigurationWarning", reason="WatchesDown")
    await kube.until("agentqueue", "demo", warned)
    assert (await operator.ask("/healthz"))[0] == 200
    await heals(kube, operator, "without-pods")  # what can be watched is served
    await kube.patch("role", "operator", {"rules": role["rules"]})
    await kube.until("agentqueue", "demo", has_condition("ConfigurationWarning", "False"), timeout=90)
    assert (await operator.metrics())["agentqueue_operator_watches_down"] == 0.0


async def test_a_taken_port_is_told_with_the_setting_s_name(operators: Operators) -> None:
    first = await operators.started()
    second = await operators.start(port=str(first.port))
    assert await asyncio.wait_for(second.process.wait(), 90) == 2
    assert "AGENTQUEUE_OPERATOR_PORT" in second.log.read_text()
    began = monotonic()
    assert (await first.ask("/readyz"))[0] == 200
    assert monotonic() - began < 5
