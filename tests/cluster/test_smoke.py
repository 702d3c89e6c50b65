"""What a user's workload gets from the cluster that the tests run on."""

import pytest

from tests.support.cluster.kube import ConditionNotMet, Kube, Object, has_condition, is_ready, is_rolled_out, terminated
from tests.support.cluster.manifests import claim, container, deployment, pod, role, service

SERVE = "import http.server as h; h.test(h.SimpleHTTPRequestHandler, port=8000)"
FOREVER = "import time; time.sleep(3600)"


def succeeded(found: Object) -> bool:
    """Succeeded."""
    return bool(found["status"]["phase"] == "Succeeded")


async def test_worker_image_runs_as_a_deployment_under_the_restricted_standard(kube: Kube, worker_image: str) -> None:
    label = {"pod-security.kubernetes.io/enforce": "restricted"}
    await kube.patch("namespace", kube.namespace, {"metadata": {"labels": label}})
    await kube.apply(deployment("web", container(worker_image, "import agentqueue_worker\n" + SERVE), replicas=2))
    await kube.until("deployment", "web", is_rolled_out)
    first, _ = await kube.list("pod", labels="app=web")
    assert await kube.run(first["metadata"]["name"], "id", "-u") == "65532\n"


async def test_pod_reaches_a_service_by_its_name(kube: Kube, worker_image: str) -> None:
    await kube.apply(deployment("web", container(worker_image, SERVE)), service("web", 8000))
    await kube.until("deployment", "web", is_rolled_out)
    ask = f"""
import time, urllib.error, urllib.request
while True:
    try:
        print(urllib.request.urlopen('http://web.{kube.namespace}.svc.cluster.local:8000', timeout=2).status)
        break
    except urllib.error.URLError as error:  # the rules for a new Service take a moment to reach the node
        print(error)
        time.sleep(0.2)
"""
    await kube.apply(pod("asks", container(worker_image, ask), restartPolicy="Never"))
    await kube.until("pod", "asks", succeeded)
    assert (await kube.logs("asks")).splitlines()[-1] == "200"


async def test_pod_asks_the_api_by_its_service_account(kube: Kube, worker_image: str) -> None:
    rules = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}]
    await kube.apply(*role("reader", rules))
    ask = f"""
import pathlib, ssl, urllib.error, urllib.request
where = pathlib.Path('/var/run/secrets/kubernetes.io/serviceaccount')
trusted = ssl.create_default_context(cafile=where / 'ca.crt')
def status(path):
    url = 'https://kubernetes.default.svc/api/v1/namespaces/{kube.namespace}/' + path
    asked = urllib.request.Request(url, headers={{'Authorization': 'Bearer ' + (where / 'token').read_text()}})
    try:
        return urllib.request.urlopen(asked, context=trusted).status
    except urllib.error.HTTPError as error:
        return error.code
print(status('configmaps/kube-root-ca.crt'), status('secrets'))
"""
    await kube.apply(pod("asks", container(worker_image, ask), restartPolicy="Never"))
    await kube.until("pod", "asks", succeeded)
    assert await kube.logs("asks") == "200 403\n"


async def test_container_is_killed_at_its_memory_limit(kube: Kube, worker_image: str) -> None:
    greedy = container(worker_image, "held = bytearray(256 * 2**20)", resources={"limits": {"memory": "64Mi"}})
    await kube.apply(pod("greedy", greedy, restartPolicy="Never"))
    found = await kube.until("pod", "greedy", lambda found: terminated(found) is not None, what="terminated")
    ended = terminated(found)
    assert ended is not None
    assert (ended["reason"], ended["exitCode"]) == ("OOMKilled", 137)


async def test_volume_keeps_data_over_a_pod_s_end_and_grows(kube: Kube, worker_image: str) -> None:
    await kube.apply(claim("data", "1Gi"))
    write = "import pathlib; print(*pathlib.Path('/data').iterdir()); pathlib.Path('/data/kept').touch()"
    mounted = container(worker_image, write, volumeMounts=[{"name": "data", "mountPath": "/data"}])
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
    for name, seen in (("first", "\n"), ("second", "/data/kept\n")):
        await kube.apply(pod(name, mounted, volumes=volumes, restartPolicy="Never"))
        await kube.until("pod", name, succeeded)
        assert await kube.logs(name) == seen
        await kube.delete("pod", name)
    await kube.patch("pvc", "data", {"spec": {"resources": {"requests": {"storage": "2Gi"}}}})
    await kube.until("pvc", "data", lambda found: found["status"]["capacity"]["storage"] == "2Gi", what="2Gi large")


async def test_volume_goes_with_its_claim(kube: Kube) -> None:
    await kube.apply(claim("data", "1Gi"))
    bound = await kube.until("pvc", "data", lambda found: found["status"]["phase"] == "Bound", what="bound")
    await kube.delete("pvc", "data")
    await kube.until_gone("pv", bound["spec"]["volumeName"])


async def test_logs_exec_and_events_are_there(kube: Kube, worker_image: str) -> None:
    await kube.apply(pod("talks", container(worker_image, "print('hello', flush=True)\n" + FOREVER)))
    await kube.until("pod", "talks", is_ready)
    assert await kube.logs("talks") == "hello\n"
    assert await kube.run("talks", "cat", "/etc/hostname") == "talks\n"
    reasons = {event["reason"] for event in await kube.list("events")}
    assert {"Scheduled", "Started"} <= reasons


async def test_failed_wait_tells_what_the_cluster_knows(kube: Kube, worker_image: str) -> None:
    broken = container(worker_image, "print('no such road', flush=True)\nsys.exit(3)")
    await kube.apply(pod("broken", broken, restartPolicy="Never"))
    await kube.until("pod", "broken", lambda found: found["status"]["phase"] == "Failed", what="failed")
    with pytest.raises(ConditionNotMet) as caught:
        await kube.until("pod", "broken", has_condition("Ready"), timeout=0.3)
    told = str(caught.value)
    assert "pod broken after 0.3 s: not Ready=True" in told
    for fact in ("Exit Code:    3", "no such road", "Scheduled"):
        assert fact in told
