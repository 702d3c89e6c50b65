"""Each fault that a test can ask for does what it says, and is over when it is taken back."""

import asyncio
from typing import Any

import httpx
import pytest

from tests.support.cluster.faults import Faults
from tests.support.cluster.kube import ApiError, Kube, Object, has_condition, is_ready, is_rolled_out
from tests.support.cluster.layout import NODES
from tests.support.cluster.manifests import container, deployment, idle_container, pod
from tests.support.cluster.own import CONTROL, OwnCluster
from tests.support.cluster.shell import ClusterError
from tests.support.waiting import until

PARTS = [
    *((CONTROL, part) for part in ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")),
    *((CONTROL, part) for part in ("coredns", "volumes")),
    *((NODES[0], part) for part in ("containerd", "kubelet", "kube-proxy")),
]

FOREVER = "import time; time.sleep(3600)"


def silent(cluster: OwnCluster) -> set[tuple[str, str]]:
    return {(machine, part) for machine, part, ready in cluster.status() if not ready}


def container_of(found: Object) -> str:
    return str(found["status"]["containerStatuses"][0]["containerID"])


def restarts(found: Object) -> int:
    return int(found["status"]["containerStatuses"][0]["restartCount"])


def takes_pods(found: Object) -> bool:
    """a Ready node without taints."""
    return is_ready(found) and not found["spec"].get("taints")


async def idle_pod(kube: Kube, name: str, **spec: Any) -> Object:
    """A running pod that does nothing."""
    await kube.apply(pod(name, idle_container(), **spec))
    return await kube.until("pod", name, is_ready)


@pytest.fixture
async def survivor(kube: Kube) -> Object:
    """A pod that ran before the fault."""
    return await idle_pod(kube, "survivor")


@pytest.mark.parametrize(("machine", "part"), PARTS, ids=[part for _, part in PARTS])
async def test_a_part_is_gone_while_it_is_stopped(
    own_cluster: OwnCluster, faults: Faults, machine: str, part: str
) -> None:
    async with faults.stopped(part, machine):
        assert (machine, part) in await asyncio.to_thread(silent, own_cluster)
    assert (machine, part) not in await asyncio.to_thread(silent, own_cluster)


async def test_pods_run_on_while_the_api_server_is_stopped(kube: Kube, faults: Faults, survivor: Object) -> None:
    async with faults.stopped("kube-apiserver"):
        with pytest.raises(httpx.TransportError):
            await kube.get("pod", "survivor")
    found = await kube.get("pod", "survivor")
    assert (container_of(found), restarts(found)) == (container_of(survivor), 0)
    await idle_pod(kube, "later")


async def refusal(kube: Kube, path: str) -> int | None:
    """The API server's refusal of a request, by its status."""
    try:
        await kube.request("GET", path)
    except ApiError as error:
        return error.status
    return None


async def test_objects_outlive_a_stop_of_etcd(kube: Kube, faults: Faults) -> None:
    await kube.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kept"}, "data": {"k": "v"}})
    async with faults.stopped("etcd"):
        await until(lambda: refusal(kube, "/readyz"), what="the API server to miss it")  # it asks etcd now and then
        assert await refusal(kube, "/readyz") == 500
    assert (await kube.get("configmap", "kept"))["data"] == {"k": "v"}
    await idle_pod(kube, "later")


async def test_no_pod_starts_while_the_kubelet_is_stopped(kube: Kube, faults: Faults, survivor: Object) -> None:
    async with faults.stopped("kubelet"):
        await kube.apply(pod("later", idle_container()))
        await kube.until("node", NODES[0], has_condition("Ready", "Unknown"))
        assert "containerStatuses" not in (await kube.get("pod", "later"))["status"]
    await kube.until("node", NODES[0], takes_pods)
    await kube.until("pod", "later", is_ready)
    assert restarts(await kube.get("pod", "survivor")) == 0


async def test_containers_run_on_while_containerd_is_stopped(kube: Kube, faults: Faults, survivor: Object) -> None:
    async with faults.stopped("containerd"):
        await kube.apply(pod("later", idle_container()))
    await kube.until("pod", "later", is_ready)
    found = await kube.get("pod", "survivor")
    assert (container_of(found), restarts(found)) == (container_of(survivor), 0)


async def test_a_killed_container_is_reported_and_restarted(kube: Kube, faults: Faults, survivor: Object) -> None:
    await faults.kill_container(kube, "survivor")
    found = await kube.until(
        "pod", "survivor", lambda found: restarts(found) == 1 and is_ready(found), what="restarted"
    )
    ended = found["status"]["containerStatuses"][0]["lastState"]["terminated"]
    assert (ended["exitCode"], ended["containerID"]) == (137, container_of(survivor))


async def test_an_evicted_pod_is_replaced(kube: Kube, worker_image: str) -> None:
    await kube.apply(deployment("web", container(worker_image, FOREVER)))
    await kube.until("deployment", "web", is_rolled_out)
    (first,) = await kube.list("pod")
    await kube.evict(first["metadata"]["name"])
    await kube.until_gone("pod", first["metadata"]["name"])
    await kube.until("deployment", "web", is_rolled_out)
    (second,) = await kube.list("pod")
    assert second["metadata"]["uid"] != first["metadata"]["uid"]


async def test_a_disruption_budget_refuses_an_eviction(kube: Kube, worker_image: str) -> None:
    await kube.apply(pod("stays", container(worker_image, FOREVER)))
    budget = {"minAvailable": 1, "selector": {"matchLabels": {"app": "stays"}}}
    await kube.apply(
        {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "budget"}, "spec": budget}
    )
    await kube.until("pdb", "budget", lambda found: found.get("status", {}).get("currentHealthy") == 1, what="counted")
    with pytest.raises(ApiError) as refused:
        await kube.evict("stays")
    assert refused.value.status == 429


async def test_a_drained_node_is_empty_and_stays_so(kube: Kube, faults: Faults, second_node: str) -> None:
    await idle_pod(kube, "leaves", nodeName=second_node)
    await kube.apply(deployment("web", idle_container(), replicas=4))
    await kube.until("deployment", "web", is_rolled_out)
    await faults.drain(second_node)
    assert await kube.list("pod", fields=f"spec.nodeName={second_node}") == []
    await kube.patch("deployment", "web", {"spec": {"replicas": 6}})
    await kube.until("deployment", "web", is_rolled_out)
    assert {found["spec"]["nodeName"] for found in await kube.list("pod")} == {NODES[0]}


async def test_a_drain_that_a_budget_forbids_gives_up(kube: Kube, faults: Faults, second_node: str) -> None:
    await idle_pod(kube, "stays", nodeName=second_node)
    budget = {"minAvailable": 1, "selector": {"matchLabels": {"app": "stays"}}}
    await kube.apply(
        {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "budget"}, "spec": budget}
    )
    await kube.until("pdb", "budget", lambda found: found.get("status", {}).get("currentHealthy") == 1, what="counted")
    with pytest.raises(ClusterError, match="disruption budget"):
        await faults.drain(second_node, timeout=2)
    assert is_ready(await kube.get("pod", "stays"))


async def test_a_cordoned_node_takes_no_pods_until_it_is_uncordoned(
    kube: Kube, faults: Faults, second_node: str
) -> None:
    here = {"nodeSelector": {"kubernetes.io/hostname": second_node}}
    await faults.cordon(second_node)
    await kube.apply(pod("waits", idle_container(), **here))
    await kube.until("pod", "waits", has_condition("PodScheduled", "False", reason="Unschedulable"))
    await faults.uncordon(second_node)
    await kube.until("pod", "waits", is_ready)


async def test_a_node_that_is_cut_off_runs_on_unheard(
    kube: Kube, own_cluster: OwnCluster, faults: Faults, second_node: str
) -> None:
    before = await idle_pod(kube, "there", nodeName=second_node)
    await faults.cut_off(second_node)
    await kube.until("node", second_node, has_condition("Ready", "Unknown"))
    listed = ("ctr", "--namespace", "k8s.io", "tasks", "list")
    running = await asyncio.to_thread(own_cluster.machine(second_node).run, *listed)
    assert container_of(before).rpartition("/")[2] in running
    await faults.reconnect(second_node)
    await kube.until("node", second_node, takes_pods)
    after = await kube.until("pod", "there", is_ready)
    assert container_of(after) == container_of(before)


async def test_a_node_that_crashed_starts_its_pods_anew_when_it_boots(
    kube: Kube, own_cluster: OwnCluster, faults: Faults, second_node: str
) -> None:
    before = await idle_pod(kube, "there", nodeName=second_node)
    await faults.crash(second_node)
    assert second_node not in own_cluster.nodes()
    await kube.until("node", second_node, has_condition("Ready", "Unknown"))
    await faults.boot(second_node)
    await kube.until("node", second_node, takes_pods)
    after = await kube.until(
        "pod", "there", lambda found: is_ready(found) and container_of(found) != container_of(before), what="anew"
    )
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
