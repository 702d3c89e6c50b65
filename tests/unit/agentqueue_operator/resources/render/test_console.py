"""The rendered objects of the console."""

from agentqueue_operator.resources.render import (
    console_name,
)
from tests.support import resources
from tests.support.rendering import container, decoded, find, rendered, template


def test_the_console_listens_for_others_and_asks_for_a_token() -> None:
    made = rendered()
    (spec,) = find(made, "Deployment", console_name("case"))["spec"]["template"]["spec"]["containers"]
    found = {it["name"]: it.get("value", it.get("valueFrom")) for it in spec["env"]}
    assert found["AGENTQUEUE_CONSOLE_HOST"] == "0.0.0.0"
    assert found["AGENTQUEUE_CONSOLE_TOKEN"] == {"secretKeyRef": {"name": console_name("case"), "key": "token"}}
    assert found["AGENTQUEUE_CONSOLE_PORT"] == str(spec["ports"][0]["containerPort"])
    assert decoded(find(made, "Secret", console_name("case"))) == {"token": "t"}
    assert spec["command"] == ["env", "--block-signal=TERM", "python", "-m", "agentqueue.console"]


def test_a_worker_runs_the_entry_point_of_its_image_in_process_namespaces_of_its_own() -> None:
    assert container().keys().isdisjoint({"command", "args"}), "the entry point keeps an early SIGTERM"
    assert "shareProcessNamespace" not in template()["spec"], "other containers neither see nor end the worker"


def test_a_token_of_the_users_own_is_used_as_it_is() -> None:
    data = resources.resource(
        console={
            "tokenSecretRef": {"name": "own", "key": "k"},
            "image": "mine:1",
            "replicas": 2,
            "resources": {"limits": {"memory": "1Gi"}},
            "service": {"type": "LoadBalancer", "port": 8080},
            "podTemplate": {"spec": {"nodeSelector": {"a": "b"}}},
        }
    )
    made = rendered(data)
    deployment = find(made, "Deployment", console_name("case"))["spec"]
    (spec,) = deployment["template"]["spec"]["containers"]
    assert {"name": "AGENTQUEUE_CONSOLE_TOKEN", "valueFrom": {"secretKeyRef": {"name": "own", "key": "k"}}} in spec[
        "env"
    ]
    assert (deployment["replicas"], spec["image"]) == (2, "mine:1")
    assert spec["resources"] == {"limits": {"memory": "1Gi"}}
    assert deployment["template"]["spec"]["nodeSelector"] == {"a": "b"}
    service = find(made, "Service", console_name("case"))["spec"]
    assert (service["type"], service["ports"][0]["port"]) == ("LoadBalancer", 8080)
    assert not any((it["kind"], it["metadata"]["name"]) == ("Secret", console_name("case")) for it in made)


def test_a_disabled_console_has_no_objects() -> None:
    made = rendered(resources.resource(console={"enabled": False}))
    assert "console" not in {it["metadata"]["labels"]["agentqueue.dev/component"] for it in made}
