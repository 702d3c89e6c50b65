"""An AgentQueue from apply to delete, with the operator in the test's own loop."""

from agentqueue.client import Job
from agentqueue_operator.resources.kinds import POD_MONITOR, PRUNED
from agentqueue_operator.resources.render import Images, redis_name, worker_name
from tests.support.cluster.kube import Cluster, Kube, has_condition, is_rolled_out
from tests.support.operator import (
    CODE,
    Operator,
    agent,
    agent_queue,
    client_of,
    code,
    condition,
    install_crd,
    is_ready,
    owned,
    run_operator,
    settled,
    until,
)

AQ = "agentqueue"
GREETINGS = worker_name("demo", "greetings")


async def test_applied_resource_is_ready_and_its_pods_do_jobs(operator: Operator, kube: Kube) -> None:
    label = {"pod-security.kubernetes.io/enforce": "restricted"}
    await kube.patch("namespace", kube.namespace, {"metadata": {"labels": label}})
    await kube.apply(code(), agent_queue())
    await kube.kubectl("wait", "--for=condition=Ready", "agentqueue/demo", "--timeout=60s", timeout=70)
    async with client_of(kube) as client:
        job = await client.enqueue("greetings", "greet", "world")
        assert await job.result(timeout=20) == "Hello world"
    await kube.until(AQ, "demo", lambda found: found["status"].get("active") == 0)  # as the next pass sees the queue
    header, row = (line.split() for line in (await kube.kubectl("get", "aq")).splitlines())
    shown = dict(zip(header, row, strict=True))
    assert {name: shown[name] for name in ("NAME", "READY", "STATUS", "AGENTS", "WAITING", "ACTIVE")} == {
        "NAME": "demo",
        "READY": "True",
        "STATUS": "Available",
        "AGENTS": "1/1",
        "WAITING": "0",
        "ACTIVE": "0",
    }
    reasons = {one["reason"] for one in await kube.list("events") if one["involvedObject"]["kind"] == "AgentQueue"}
    assert {"RedisReady", "Ready", "Scaled"} <= reasons
    assert not operator.reconciles.errors


async def test_deleted_resource_leaves_only_the_volume_claim(operator: Operator, kube: Kube) -> None:
    await kube.apply(code(), agent_queue())
    await kube.until(AQ, "demo", is_ready, timeout=60)
    await kube.delete(AQ, "demo")
    await kube.until_gone("statefulset", redis_name("demo"))
    await gone(kube)
    assert len(await kube.list("pvc")) == 1
    await kube.apply(agent_queue())
    found = await kube.until(AQ, "demo", has_condition("ConfigurationWarning", reason="VolumeReused"))
    assert "data-" in condition(found, "ConfigurationWarning")["message"]
    await kube.until(AQ, "demo", is_ready, timeout=60)


async def test_deleting_works_with_the_operator_gone(cluster: Cluster, kube: Kube, aq_images: Images) -> None:
    await install_crd(kube)
    async with run_operator(cluster.kubeconfig, kube.namespace, aq_images):
        await kube.apply(code(), agent_queue())
        await kube.until(AQ, "demo", is_ready, timeout=60)
    await kube.delete(AQ, "demo")
    await kube.until_gone(AQ, "demo", timeout=10)
    await gone(kube)
    assert len(await kube.list("pvc")) == 1


async def test_at_rest_nothing_is_written(operator: Operator, kube: Kube) -> None:
    await kube.apply(code(), agent_queue())
    await kube.until(AQ, "demo", is_ready, timeout=60)
    await settled(operator)
    before, reconciles = operator.writes(), len(operator.reconciles.seconds)
    await until(lambda: len(operator.reconciles.seconds) >= reconciles + 3)
    assert operator.writes() == before


async def test_changes_of_the_resource_are_rolled_out_and_what_it_drops_goes(operator: Operator, kube: Kube) -> None:
    await kube.apply(code(), agent_queue(agents=[agent("greetings"), agent("others")]))
    await kube.until(AQ, "demo", is_ready, timeout=60)
    before = await kube.get("deployment", GREETINGS)
    await kube.apply(agent_queue(agents=[agent("greetings", concurrency=7)], networkPolicy={"enabled": False}))
    await kube.until_gone("deployment", worker_name("demo", "others"))
    await kube.until_gone("networkpolicy", redis_name("demo"))
    await kube.until(AQ, "demo", has_condition("Progressing", "False", reason="Stable"), timeout=60)
    after = await kube.get("deployment", GREETINGS)
    assert is_rolled_out(after)
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    (env,) = [one for one in after["spec"]["template"]["spec"]["containers"][0]["env"] if "CONCURRENCY" in one["name"]]
    assert env["value"] == "7"
    assert len(await kube.list("statefulset")) == 1


async def test_changed_code_is_rolled_out(operator: Operator, kube: Kube) -> None:
    await kube.apply(code(), agent_queue())
    await kube.until(AQ, "demo", is_ready, timeout=60)
    await kube.apply(code(CODE.replace("Hello", "Servus")))
    before = (await kube.get("deployment", GREETINGS))["metadata"]["generation"]
    await kube.until("deployment", GREETINGS, lambda found: found["metadata"]["generation"] > before, what="changed")
    await kube.until("deployment", GREETINGS, is_rolled_out)
    async with client_of(kube) as client:
        job = await client.enqueue("greetings", "greet", "world")
        assert await job.result(timeout=20) == "Servus world"


async def test_suspend_lets_running_jobs_end_and_takes_all_workers_away(operator: Operator, kube: Kube) -> None:
    await kube.apply(code(), agent_queue())
    await kube.until(AQ, "demo", is_ready, timeout=60)
    async with client_of(kube) as client:
        job = await client.enqueue("greetings", "nap", 8)
        await until(lambda: is_active(job), timeout=20)
        await kube.patch(AQ, "demo", {"spec": {"suspend": True}})
        suspended = await kube.until(AQ, "demo", has_condition("Paused", reason="Suspended"))
        assert condition(suspended, "Ready")["reason"] == "Suspended"
        assert await job.result(timeout=30) == "rested"
        assert (await job.status()).deliveries == 1
        await kube.until("deployment", GREETINGS, lambda one: not one["spec"]["replicas"], what="at zero")
        await client.enqueue("greetings", "greet", "later", id="later")
        await kube.patch(AQ, "demo", {"spec": {"suspend": False}})
        assert await client.job("later").result(timeout=40) == "Hello later"


async def test_pause_annotation_keeps_hands_off(operator: Operator, kube: Kube) -> None:
    await kube.apply(code(), agent_queue())
    await kube.until(AQ, "demo", is_ready, timeout=60)
    await kube.patch(AQ, "demo", {"metadata": {"annotations": {"agentqueue.dev/paused": "true"}}})
    await kube.until(AQ, "demo", has_condition("Paused", reason="PausedByAnnotation"))
    await kube.delete("networkpolicy", redis_name("demo"))
    await kube.patch("deployment", GREETINGS, {"spec": {"minReadySeconds": 3}})
    reconciles = len(operator.reconciles.seconds)
    await until(lambda: len(operator.reconciles.seconds) >= reconciles + 2)
    assert await kube.find("networkpolicy", redis_name("demo")) is None
    await kube.patch(AQ, "demo", {"metadata": {"annotations": {"agentqueue.dev/paused": None}}})
    await kube.until("networkpolicy", redis_name("demo"), lambda _: True, what="back")
    await kube.until(AQ, "demo", has_condition("Paused", "False"))


async def is_active(job: Job) -> bool:
    return (await job.status()).state == "active"


async def gone(kube: Kube) -> None:
    """Wait until nothing but the volume claim bears our label."""
    kinds = [kind.plural for kind in PRUNED if kind is not POD_MONITOR] + ["pods"]

    async def nothing() -> bool:
        return not [one for kind in kinds for one in await owned(kube, kind)]

    await until(nothing)
