"""Live objects that are up to date, and objects that are not."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentqueue_operator.resources.comparison import (
    HASH_ANNOTATION,
    contains_desired,
    is_up_to_date,
    owned_fields,
    owns_fields,
)

Object = dict[str, Any]


@pytest.mark.parametrize(
    ("live", "wanted"),
    [
        pytest.param({"a": 1, "b": 2}, {"a": 1}, id="others-fields"),
        pytest.param({}, {"a": None, "b": {}, "c": [], "d": "", "e": False, "f": 0}, id="empties-vanish"),
        pytest.param({"a": {"defaulted": True}}, {"a": {}}, id="an-empty-map-asks-for-nothing"),
        pytest.param({"requests": {"cpu": "10m"}}, {"requests": {"cpu": "0.010"}}, id="quantities-of-cpu"),
        pytest.param({"limits": {"memory": "1Gi"}}, {"limits": {"memory": "1024Mi"}}, id="quantities-of-memory"),
        pytest.param({"limits": {"gpu": "1"}}, {"limits": {"gpu": 1}}, id="numbers-are-quantities"),
        pytest.param({"sizeLimit": "1Gi"}, {"sizeLimit": "1024Mi"}, id="a-field-that-is-a-quantity"),
        pytest.param(
            {"containers": [{"name": "sidecar"}, {"name": "worker", "image": "a", "imagePullPolicy": "Always"}]},
            {"containers": [{"name": "worker", "image": "a"}]},
            id="others-items-in-a-list-by-key",
        ),
        pytest.param(
            {"ports": [{"containerPort": 80, "protocol": "TCP"}]},
            {"ports": [{"containerPort": 80}]},
            id="a-key-defaulted",
        ),
        pytest.param({"drop": ["ALL"]}, {"drop": ["ALL"]}, id="a-plain-list"),
        pytest.param({"rules": [{"a": 1, "b": 2}]}, {"rules": [{"a": 1}]}, id="defaults-in-a-plain-list"),
        pytest.param({"env": ["odd"]}, {"env": ["odd"]}, id="a-list-by-key-of-no-maps"),
    ],
)
def test_holds(live: Object, wanted: Object) -> None:
    assert contains_desired(live, wanted)


@pytest.mark.parametrize(
    ("live", "wanted"),
    [
        pytest.param({"a": 2}, {"a": 1}, id="another-value"),
        pytest.param({}, {"a": 1}, id="a-missing-field"),
        pytest.param({"a": 1}, {"a": {"b": 1}}, id="no-map"),
        pytest.param({"a": 1}, {"a": [1]}, id="no-list"),
        pytest.param({"a": 1}, {"a": {}}, id="a-value-for-an-empty-map"),
        pytest.param({"a": True}, {"a": False}, id="a-switch"),
        pytest.param({"limits": {"cpu": "11m"}}, {"limits": {"cpu": "0.010"}}, id="another-quantity"),
        pytest.param({"limits": {}}, {"limits": {"cpu": "1"}}, id="no-quantity"),
        pytest.param({"sizeLimit": None}, {"sizeLimit": "1Gi"}, id="no-size"),
        pytest.param({"limits": {"cpu": "many"}}, {"limits": {"cpu": "more"}}, id="no-quantities-at-all"),
        pytest.param({"value": "1Gi"}, {"value": "1024Mi"}, id="a-text-is-no-quantity"),
        pytest.param({"drop": ["ALL", "NET"]}, {"drop": ["ALL"]}, id="a-longer-plain-list"),
        pytest.param({"env": [{"name": "B", "value": "1"}]}, {"env": [{"name": "A", "value": "1"}]}, id="another-item"),
    ],
)
def test_does_not_contain(live: Object, wanted: Object) -> None:
    assert not contains_desired(live, wanted)


@given(
    st.recursive(
        st.integers() | st.text() | st.booleans() | st.none(), lambda it: st.lists(it) | st.dictionaries(st.text(), it)
    )
)
def test_every_value_contains_itself(value: Any) -> None:
    assert contains_desired(value, value)


def fields_of(value: Any) -> Any:
    """Return fieldsV1 of an applied value, for types whose maps are granular and whose lists have the key `name`."""
    if isinstance(value, dict):
        return {f"f:{key}": fields_of(inner) for key, inner in value.items()}
    if isinstance(value, list) and all(isinstance(item, dict) and "name" in item for item in value):
        return {f"k:{json.dumps({'name': item['name']})}": {".": {}, **fields_of(item)} for item in value}
    return {}


def manifest() -> Object:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "a", "namespace": "b", "annotations": {HASH_ANNOTATION: "1"}},
        "spec": {"replicas": 2, "args": ["x"], "env": [{"name": "A", "value": "1"}], "empty": {}},
    }


def applied(wanted: Object, **more: Any) -> Object:
    """Return the live object after an apply of the manifest."""
    content = {key: value for key, value in wanted.items() if key not in ("apiVersion", "kind", "metadata")}
    fields = fields_of({**content, "metadata": {"annotations": wanted["metadata"]["annotations"]}})
    entry = {"manager": "agentqueue-operator", "operation": "Apply", "fieldsV1": fields}
    return {**wanted, **more, "metadata": {**wanted["metadata"], "uid": "u", "managedFields": [entry]}}


def test_an_applied_object_is_up_to_date() -> None:
    assert is_up_to_date(applied(manifest()), manifest())


def test_an_object_with_another_hash_is_not_up_to_date() -> None:
    wanted = manifest()
    wanted["metadata"]["annotations"] = {HASH_ANNOTATION: "2"}
    assert not is_up_to_date(applied(manifest()), wanted)


def test_an_object_that_was_never_applied_is_not_up_to_date() -> None:
    live = applied(manifest())
    live["metadata"]["managedFields"] = [{"manager": "kubectl", "operation": "Apply", "fieldsV1": {}}]
    assert not is_up_to_date(live, manifest())


def test_an_object_with_a_field_that_another_manager_took_is_not_up_to_date() -> None:
    live = applied(manifest())
    del live["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"]["f:replicas"]
    assert not is_up_to_date(live, manifest())


def test_an_item_that_somebody_took_is_not_the_same() -> None:
    live = applied(manifest())
    live["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"]["f:env"] = {'k:{"name":"B"}': {}}
    assert not is_up_to_date(live, manifest())


@pytest.mark.parametrize("stale", [{"f:old": {}}, {"f:env": {'k:{"name":"A"}': {"f:old": {}}, 'k:{"name":"B"}': {}}}])
def test_a_field_that_is_rendered_no_more_is_not_the_same(stale: Object) -> None:
    live = applied(manifest())
    fields = live["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"]
    for key, value in stale.items():
        fields[key] = {**fields.get(key, {}), **value}
    assert not is_up_to_date(live, manifest())


def test_values_of_sets_and_defaulted_keys_are_known() -> None:
    wanted = manifest()
    wanted["spec"] = {"finalizers": ["a"], "ports": [{"port": 80, "name": ""}]}
    live = applied(wanted)
    spec: dict[str, dict[str, object]] = {
        "f:finalizers": {'v:"a"': {}},
        "f:ports": {'k:{"port":80,"protocol":"TCP"}': {".": {}, "f:port": {}}, "i:0": {}},
    }
    live["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"] = spec
    assert not is_up_to_date(live, wanted)  # an index is nothing that we render by
    del spec["f:ports"]["i:0"]
    assert is_up_to_date(live, wanted)
    spec["f:finalizers"]['v:"b"'] = {}
    assert not is_up_to_date(live, wanted)


def test_fields_under_what_is_no_map_are_stale() -> None:
    wanted = manifest()
    live = applied(wanted)
    live["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"]["f:replicas"] = {"f:what": {}}
    assert not is_up_to_date(live, wanted)


def test_owns() -> None:
    live = applied(manifest())
    assert owns_fields(live, "spec", "replicas")
    assert not owns_fields(live, "spec", "paused")
    assert not owns_fields(live, "spec", "replicas", manager="agentqueue-handover")
    assert not owns_fields({"metadata": {}}, "spec")
    assert (
        owned_fields({"metadata": {"managedFields": [{"manager": "agentqueue-operator", "operation": "Apply"}]}}) == {}
    )
