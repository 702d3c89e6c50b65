"""The CRD before a real API server: what it takes, what it refuses and with which words, and that `check` agrees."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from agentqueue.spec import check, load_file
from agentqueue.spec.crd import crd
from agentqueue.spec.rules import RULES
from tests.support import resources
from tests.support.cluster.kube import Cluster, Kube

ROOT = Path(__file__).parents[2]
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/agentqueues.agentqueue.dev"
OBJECTS = "/apis/agentqueue.dev/v1alpha1/namespaces/default/agentqueues"
APPLY = {"Content-Type": "application/apply-patch+yaml"}
TRY = {"dryRun": "All", "fieldValidation": "Strict"}
MESSAGES = {rule.name: rule.message for rule in RULES}

Json = dict[str, Any]


@pytest.fixture(scope="module")
def api(cluster: Cluster) -> Iterator[httpx.Client]:
    """An API server that knows the CRD; it is left there, other tests' resources may need it."""
    with cluster.access.client() as client:
        applied = client.patch(CRDS, json=crd(), headers=APPLY, params={"fieldManager": "tests", "force": "true"})
        assert applied.is_success, applied.json()["message"]
        _await_established(client)
        yield client


def _await_established(client: httpx.Client) -> None:
    """Until its objects are served as it is now: the server takes a new definition over a moment after it has it."""
    probe = resources.resource(suspend="served?")
    deadline = time.monotonic() + 30
    while client.post(OBJECTS, json=probe, params=TRY).status_code != 422:
        assert time.monotonic() < deadline, "the API server does not serve AgentQueues"
        time.sleep(0.05)


def refusal(answer: httpx.Response) -> str | None:
    """The API server's message, None if it took the resource."""
    if answer.is_success:
        return None
    assert answer.status_code in (400, 422), answer.text
    return str(answer.json()["message"])


def tried(api: httpx.Client, data: Json) -> str | None:
    return refusal(api.post(OBJECTS, json=data, params=TRY))


def changed(api: httpx.Client, old: Json, new: Json) -> str | None:
    """What is said of the change, tried on a resource that is there for the while."""
    made = api.post(OBJECTS, json=old)
    assert made.is_success, made.text
    path, version = f"{OBJECTS}/{old['metadata']['name']}", made.json()["metadata"]["resourceVersion"]
    try:
        new = {**new, "metadata": {**new["metadata"], "resourceVersion": version}}
        return refusal(api.put(path, json=new, params=TRY))
    finally:
        api.delete(path).raise_for_status()


@pytest.mark.parametrize(
    ("name", "data"),
    [(name, data) for name, cases in resources.RULES.items() for data, _ in cases.refused],
)
def test_what_breaks_a_rule_is_refused_with_its_message(api: httpx.Client, name: str, data: Json) -> None:
    said = tried(api, data)
    assert said is not None
    assert [message for message in MESSAGES.values() if message in said] == [MESSAGES[name]]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        pytest.param(rule.name, data, id=rule.name)
        for rule in RULES
        if rule.message_cel
        for data, _ in resources.RULES[rule.name].refused[:1]
    ],
)
def test_a_rule_on_agents_names_the_one_that_breaks_it(api: httpx.Client, name: str, data: Json) -> None:
    said = tried(api, data)
    assert said is not None
    assert f"agent a: {MESSAGES[name]}" in said


def test_the_first_of_many_agents_that_break_a_rule_is_named(api: httpx.Client) -> None:
    largest = resources.many_agents()
    for agent in largest["spec"]["agents"]:
        agent["scaling"] = {**agent["scaling"], "minReplicas": 11}
    said = tried(api, largest)
    assert said is not None
    assert f"agent {largest['spec']['agents'][0]['name']}: {MESSAGES['min-is-not-above-max']}" in said


@pytest.mark.parametrize("data", [data for cases in resources.RULES.values() for data in cases.accepted])
def test_what_comes_near_but_keeps_the_rule_is_accepted(api: httpx.Client, data: Json) -> None:
    assert tried(api, data) is None


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [(name, old, new) for name, cases in resources.CHANGES.items() for old, new, _ in cases.refused],
)
def test_a_forbidden_change_is_refused_with_its_message(api: httpx.Client, name: str, old: Json, new: Json) -> None:
    said = changed(api, old, new)
    assert said is not None
    assert [message for message in MESSAGES.values() if message in said] == [MESSAGES[name]]


@pytest.mark.parametrize(("old", "new"), [pair for cases in resources.CHANGES.values() for pair in cases.accepted])
def test_an_allowed_change_is_accepted(api: httpx.Client, old: Json, new: Json) -> None:
    assert changed(api, old, new) is None


def test_the_largest_resource_is_within_the_cost_limits(api: httpx.Client) -> None:
    largest = resources.many_agents()
    assert tried(api, largest) is None
    assert changed(api, largest, largest) is None


@pytest.mark.parametrize("path", sorted((ROOT / "manifests/samples").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_samples_are_accepted(api: httpx.Client, path: Path) -> None:
    for data in load_file(path).by_name().values():
        assert tried(api, data) is None


@pytest.mark.timeout(600)
def test_the_offline_check_and_the_api_server_agree_on_every_mutation(api: httpx.Client) -> None:
    """Each part of a resource that has every field, left out and replaced by values that are mostly wrong."""
    samples = load_file(ROOT / "manifests/samples/every-field.yaml").by_name().values()
    asked, disagreed = 0, []
    for sample in samples:
        plain = {key: sample[key] for key in ("apiVersion", "kind", "spec")} | {"metadata": {"name": "mutated"}}
        for what, data in resources.mutations(plain):
            asked += 1
            server, offline = tried(api, data), check(data)
            if (server is None) != (not offline):
                disagreed.append((what, server, [str(problem) for problem in offline]))
    assert asked > 4_000
    assert disagreed == []


async def test_kubectl_shows_columns_and_explains_fields(kube: Kube, api: httpx.Client) -> None:
    await kube.apply(resources.resource("shown"))
    listed = (await kube.kubectl("get", "aq")).splitlines()
    columns = ["READY", "STATUS", "AGENTS", "PODS", "WAITING", "SUSPENDED", "ACTIVE", "DEAD", "AGE"]
    assert listed[0].split() == ["NAME", *columns]
    wide = (await kube.kubectl("get", "aq", "-o", "wide")).splitlines()
    assert wide[0].split() == ["NAME", *columns, "REDIS", "WARNING", "CONSOLE", "MESSAGE"]
    assert listed[1].startswith("shown")
    explained = " ".join((await kube.kubectl("explain", "aq.spec.agents.scaling.targetWaitSeconds")).split())
    assert "Target for the time that a ready job waits before it starts, in seconds." in explained
    assert "Default: 30." in explained


async def test_a_conditions_wait_and_the_status_subresource_work(kube: Kube, api: httpx.Client) -> None:
    await kube.apply(resources.resource("waited-for"))
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "AllReady",
        "message": "All agents are ready.",
        "lastTransitionTime": "2026-01-02T03:04:05Z",
        "observedGeneration": 1,
    }
    await kube.patch("aq", "waited-for", {"status": {"conditions": [ready], "waiting": 7}}, subresource="status")
    await kube.kubectl("wait", "--for=condition=Ready", "agentqueue/waited-for", "--timeout=10s")
    shown = {"READY": ".status.conditions[0].status", "WAITING": ".status.waiting"}
    asked = ",".join(f"{name}:{path}" for name, path in shown.items())
    assert (await kube.kubectl("get", "aq", "waited-for", f"-o=custom-columns={asked}")).split()[2:] == ["True", "7"]


def test_what_no_operator_has_seen_is_not_observed(api: httpx.Client) -> None:
    """kstatus (Flux, Helm 4) takes an object without a status for one that is well."""
    made = api.post(OBJECTS, json=resources.resource("unseen"))
    try:
        assert made.json()["status"] == {"observedGeneration": -1}
    finally:
        api.delete(f"{OBJECTS}/unseen").raise_for_status()


def test_defaults_are_stored_outside_of_agents_only(api: httpx.Client) -> None:
    stored = api.post(OBJECTS, json=resources.resource(), params=TRY).json()["spec"]
    assert stored["agents"] == resources.resource()["spec"]["agents"]
    assert "agentDefaults" not in stored
    assert stored["redis"]["managed"]["storage"] == {"size": "1Gi"}
    assert stored["console"]["service"] == {"type": "ClusterIP", "port": 80}
