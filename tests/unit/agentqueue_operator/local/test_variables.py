"""Tests of a worker's environment on this machine, which follows the rules of the kubelet."""

from typing import Any

import pytest

from agentqueue.errors import InvalidSpec
from agentqueue.spec import EnvFrom, EnvVar
from agentqueue_operator.local.variables import Documents, expand, resolve_variables

DOCUMENTS = Documents(
    secrets={"keys": {"api": "s3cret", "not a name": "x"}},
    config_maps={"place": {"REGION": "eu"}},
    shell={"TOKEN": "mine"},
)


def variables(*given: Any, documents: Documents = DOCUMENTS) -> dict[str, str]:
    env = [EnvVar.model_validate(one) for one in given if "name" in one]
    env_from = [EnvFrom.model_validate(one) for one in given if "name" not in one]
    return resolve_variables("writer", env, env_from, documents)


def key(name: str, kind: str, source: str, of: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "valueFrom": {f"{kind}KeyRef": {"name": source, "key": of, **more}}}


@pytest.mark.parametrize(
    ("given", "values"),
    [
        pytest.param([{"name": "A", "value": "1"}], {"A": "1"}, id="a-value"),
        pytest.param([{"name": "A"}], {"A": ""}, id="no-value-is-an-empty-one"),
        pytest.param([key("A", "secret", "keys", "api")], {"A": "s3cret"}, id="a-secrets-key"),
        pytest.param([key("A", "configMap", "place", "REGION")], {"A": "eu"}, id="a-config-maps-key"),
        pytest.param(
            [key("TOKEN", "secret", "elsewhere", "t")], {"TOKEN": "mine"}, id="the-shell-stands-in-for-a-secret"
        ),
        pytest.param([key("A", "secret", "keys", "gone", optional=True)], {}, id="an-optional-key-may-be-absent"),
        pytest.param([{"configMapRef": {"name": "place"}}], {"REGION": "eu"}, id="all-of-a-config-map"),
        pytest.param([{"secretRef": {"name": "keys"}}], {"api": "s3cret"}, id="keys-that-are-no-names-are-left-out"),
        pytest.param([{"prefix": "P_", "configMapRef": {"name": "place"}}], {"P_REGION": "eu"}, id="with-a-prefix"),
        pytest.param([{"secretRef": {"name": "gone", "optional": True}}], {}, id="an-optional-one-may-be-absent"),
        pytest.param([{"prefix": "P_"}], {}, id="a-source-of-nothing"),
        pytest.param(
            [{"configMapRef": {"name": "place"}}, {"name": "REGION", "value": "us"}],
            {"REGION": "us"},
            id="env-goes-last",
        ),
        pytest.param(
            [{"name": "A", "value": "1"}, {"name": "B", "value": "$(A)-$(C)-$$(A)"}],
            {"A": "1", "B": "1-$(C)-$(A)"},
            id="references-to-what-came-before",
        ),
    ],
)
def test_variables(given: list[Any], values: dict[str, str]) -> None:
    assert variables(*given) == values


@pytest.mark.parametrize(
    ("given", "words"),
    [
        pytest.param(key("A", "secret", "keys", "gone"), ["env A", "key gone of the Secret keys", "set A"], id="key"),
        pytest.param(key("A", "configMap", "gone", "x"), ["key x of the ConfigMap gone"], id="config-map"),
        pytest.param({"secretRef": {"name": "gone"}}, ["envFrom names the Secret gone", "optional"], id="all-of-it"),
        pytest.param(
            {"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            ["fieldRef", "only in a pod"],
            id="field",
        ),
        pytest.param(
            {"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
            ["resourceFieldRef"],
            id="resource",
        ),
    ],
)
def test_what_is_missing_is_named_with_what_to_do(given: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(InvalidSpec) as caught:
        variables(given)
    for word in ("agent writer", *words):
        assert word in str(caught.value)


def test_a_secrets_text_is_not_expanded() -> None:
    documents = Documents(secrets={"keys": {"api": "$(A)$$"}}, config_maps={}, shell={})
    assert (
        variables({"name": "A", "value": "1"}, key("B", "secret", "keys", "api"), documents=documents)["B"] == "$(A)$$"
    )


def test_a_dollar_that_begins_nothing_stays() -> None:
    assert expand("5$ and $x", {"x": "no"}) == "5$ and $x"
