"""Paths, and what an API server's refusals mean."""

import orjson
import pytest

from agentqueue_operator.controller.kubernetes import paths
from agentqueue_operator.controller.kubernetes.api import api_error, plural_in
from agentqueue_operator.controller.ports import ApiRefused, ApiUnavailable
from agentqueue_operator.resources.kinds import AGENT_QUEUE, DEPLOYMENT, POD, SECRET, Kind
from agentqueue_operator.resources.rbac import LEADER_ELECTION_RULES, namespace_rules


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        (POD, "/api/v1/namespaces/ns/pods/x"),
        (DEPLOYMENT, "/apis/apps/v1/namespaces/ns/deployments/x"),
        (AGENT_QUEUE, "/apis/agentqueue.dev/v1alpha1/namespaces/ns/agentqueues/x"),
    ],
)
def test_an_object_s_path(kind: Kind, path: str) -> None:
    assert paths.one(kind, "ns", "x") == path
    live = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"namespace": "ns", "name": "x"}}
    assert paths.kind_of(live) is kind
    assert paths.of(live) == path
    assert paths.collection(kind, None) == path.replace("/namespaces/ns", "").removesuffix("/x")


def test_a_name_can_t_leave_its_place_in_a_path() -> None:
    assert paths.one(SECRET, "ns", "../../pods") == "/api/v1/namespaces/ns/secrets/..%2F..%2Fpods"


@pytest.mark.parametrize(
    ("path", "plural"),
    [
        ("/api/v1/namespaces/ns/pods/x", "pods"),
        ("/api/v1/pods", "pods"),
        ("/api/v1/namespaces", "namespaces"),
        ("/apis/agentqueue.dev/v1alpha1/namespaces/ns/agentqueues/x/status", "agentqueues"),
        ("/apis/apps/v1/deployments", "deployments"),
        ("/version", "other"),
    ],
)
def test_metrics_name_the_resource_and_never_the_object(path: str, plural: str) -> None:
    assert plural_in(path) == plural


def status(reason: str, message: str) -> bytes:
    return orjson.dumps({"kind": "Status", "reason": reason, "message": message})


@pytest.mark.parametrize(
    ("code", "body", "error"),
    [
        (404, status("NotFound", 'pods "x" not found'), (ApiRefused, 404, "NotFound", 'pods "x" not found')),
        (404, b"404 page not found\n", (ApiRefused, 404, "NoSuchKind", "404 page not found")),
        (409, status("AlreadyExists", "is there"), (ApiRefused, 409, "AlreadyExists", "is there")),
        (422, status("Invalid", "bad"), (ApiRefused, 422, "Invalid", "bad")),
        (403, status("Forbidden", "exceeded quota"), (ApiRefused, 403, "Forbidden", "exceeded quota")),
        (418, b"", (ApiRefused, 418, "Unknown", "")),
        (500, status("", ".spec.x: field not declared in schema"), (ApiRefused, 422, "Invalid", ".spec.x: field")),
    ],
)
def test_errors_that_a_retry_does_not_fix(code: int, body: bytes, error: tuple[type, int, str, str]) -> None:
    found = api_error(code, body)
    assert isinstance(found, ApiRefused)
    assert (type(found), found.status, found.reason) == error[:3]
    assert found.message.startswith(error[3])


@pytest.mark.parametrize(
    ("code", "retry_after", "seconds"), [(429, "7", 7.0), (503, "", None), (500, "soon", None), (504, "1", 1.0)]
)
def test_errors_that_a_retry_may_fix(code: int, retry_after: str, seconds: float | None) -> None:
    found = api_error(code, status("Busy", "later"), retry_after=retry_after)
    assert isinstance(found, ApiUnavailable)
    assert found.retry_after_s == seconds
    assert "Busy: later" in str(found)


def test_without_the_right_to_read_secrets_none_is_listed_and_nothing_else_changes() -> None:
    full, less = (
        {(right.group, right.resource): set(right.verbs) for right in namespace_rules(read_secrets=read)}
        for read in (True, False)
    )
    assert full.pop(("", "secrets")) - less.pop(("", "secrets")) == {"list", "watch"}
    assert full == less


def test_no_right_is_a_wildcard_or_reaches_beyond_what_is_dealt_with() -> None:
    every = [*namespace_rules(read_secrets=True), *LEADER_ELECTION_RULES]
    assert all("*" not in (right.group, right.resource, *right.verbs) for right in every)
    assert {right.resource for right in every}.isdisjoint({"nodes", "namespaces", "customresourcedefinitions", "roles"})
    assert len({(right.group, right.resource) for right in every}) == len(every)
