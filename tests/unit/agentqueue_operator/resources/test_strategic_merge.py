"""Strategic merge of pod templates by the merge keys of the Kubernetes types."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentqueue.errors import InvalidSpec
from agentqueue_operator.resources.strategic_merge import merge

Json = dict[str, Any]


def spec(**fields: Any) -> Json:
    return {"spec": fields}


def worker(**fields: Any) -> Json:
    """A template with one container."""
    return spec(containers=[{"name": "worker", **fields}])


HTTP = {"containerPort": 80, "protocol": "TCP", "name": "http"}
PULL = {"imagePullSecrets": [{"name": "a"}, {"name": "b"}]}


@pytest.mark.parametrize(
    ("base", "patch", "merged"),
    [
        pytest.param(spec(nodeSelector={"a": "1"}), {}, spec(nodeSelector={"a": "1"}), id="nothing-changes-nothing"),
        pytest.param(
            spec(nodeSelector={"a": "1"}), spec(nodeSelector={"b": "2"}), spec(nodeSelector={"a": "1", "b": "2"}),
            id="objects-merge",
        ),
        pytest.param(worker(image="a"), worker(tty=True), worker(image="a", tty=True), id="containers-merge-by-name"),
        pytest.param(
            worker(), spec(containers=[{"name": "other"}]), spec(containers=[{"name": "worker"}, {"name": "other"}]),
            id="another-container-is-added-behind",
        ),
        pytest.param(worker(args=["a", "b"]), worker(args=["c"]), worker(args=["c"]), id="plain-lists-are-replaced"),
        pytest.param(
            spec(tolerations=[{"key": "a"}]), spec(tolerations=[{"key": "b"}]), spec(tolerations=[{"key": "b"}]),
            id="tolerations-are-replaced",
        ),
        pytest.param(
            worker(env=[{"name": "A", "value": "1"}]), worker(env=[{"name": "A", "valueFrom": {"fieldRef": {}}}]),
            worker(env=[{"name": "A", "valueFrom": {"fieldRef": {}}}]),
            id="a-variable-has-one-source",
        ),
        pytest.param(
            spec(volumes=[{"name": "t", "emptyDir": {}}]),
            spec(volumes=[{"name": "t", "emptyDir": {"medium": "Memory"}}]),
            spec(volumes=[{"name": "t", "emptyDir": {"medium": "Memory"}}]),
            id="a-volumes-source-merges-with-its-own-kind",
        ),
        pytest.param(
            spec(volumes=[{"name": "t", "emptyDir": {}}]), spec(volumes=[{"name": "t", "hostPath": {"path": "/"}}]),
            spec(volumes=[{"name": "t", "hostPath": {"path": "/"}}]),
            id="a-volume-has-one-source",
        ),
        pytest.param(
            worker(volumeMounts=[{"name": "a", "mountPath": "/x"}]),
            worker(volumeMounts=[{"name": "b", "mountPath": "/x"}, {"name": "a", "mountPath": "/y"}]),
            worker(volumeMounts=[{"name": "b", "mountPath": "/x"}, {"name": "a", "mountPath": "/y"}]),
            id="mounts-merge-by-path",
        ),
        pytest.param(
            worker(ports=[HTTP]), worker(ports=[{"containerPort": 80, "hostPort": 8080}]),
            worker(ports=[{**HTTP, "hostPort": 8080}]),
            id="a-port-without-protocol-is-tcp",
        ),
        pytest.param(
            worker(ports=[HTTP]), worker(ports=[{"containerPort": 80, "protocol": "UDP"}]),
            worker(ports=[HTTP, {"containerPort": 80, "protocol": "UDP"}]),
            id="ports-of-two-protocols-are-two",
        ),
        pytest.param(spec(a=1, b=2), spec(a=None), spec(b=2), id="null-takes-a-field-out"),
        pytest.param(spec(), spec(a={"b": None, "c": {"d": None}}), spec(a={"c": {}}), id="nulls-in-new-objects-go"),
        pytest.param(
            worker(livenessProbe={"exec": {}}, tty=True), worker(livenessProbe={"$patch": "delete"}), worker(tty=True),
            id="delete-takes-an-object-out",
        ),
        pytest.param(
            worker(livenessProbe={"exec": {}}), worker(livenessProbe={"$patch": "replace", "tcpSocket": {"port": 1}}),
            worker(livenessProbe={"tcpSocket": {"port": 1}}),
            id="replace-replaces-an-object",
        ),
        pytest.param(
            spec(**PULL), spec(imagePullSecrets=[{"name": "a", "$patch": "delete"}, {"name": "c"}]),
            spec(imagePullSecrets=[{"name": "b"}, {"name": "c"}]),
            id="delete-takes-an-item-out",
        ),
        pytest.param(
            spec(**PULL), spec(imagePullSecrets=[{"name": "z", "$patch": "delete"}]), spec(**PULL),
            id="an-item-that-is-not-there-need-not-go",
        ),
        pytest.param(
            spec(**PULL), spec(imagePullSecrets=[{"$patch": "replace"}, {"name": "c"}]),
            spec(imagePullSecrets=[{"name": "c"}]),
            id="replace-replaces-a-list",
        ),
        pytest.param(
            spec(**PULL), spec(imagePullSecrets=[{"name": "a", "$patch": "merge"}]), spec(**PULL),
            id="merge-is-what-happens-anyway",
        ),
        pytest.param(
            spec(), spec(topologySpreadConstraints=[
                {"topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"},
                {"topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"},
            ]),
            spec(topologySpreadConstraints=[
                {"topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"},
                {"topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"},
            ]),
            id="spread-constraints-have-two-keys",
        ),
        pytest.param(
            spec(initContainers=[{"name": "i", "env": [{"name": "A", "value": "1"}]}]),
            spec(initContainers=[{"name": "i", "env": [{"name": "B", "value": "2"}]}]),
            spec(initContainers=[{"name": "i", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]}]),
            id="init-containers-merge-like-containers",
        ),
        pytest.param(spec(a=[1]), spec(a={"b": 1}), spec(a={"b": 1}), id="another-type-replaces"),
        pytest.param(worker(), spec(containers="all"), spec(containers="all"), id="no-list-is-the-servers-to-refuse"),
        pytest.param(worker(), spec(containers={"a": 1}), spec(containers={"a": 1}), id="nor-is-an-object"),
        pytest.param(spec(containers="?"), worker(), worker(), id="a-list-goes-over-what-is-none"),
    ],
)  # fmt: skip
def test_merge(base: Json, patch: Json, merged: Json) -> None:
    before = copy.deepcopy((base, patch))
    assert merge(base, patch) == merged
    assert (base, patch) == before, "neither argument is changed"


@pytest.mark.parametrize(
    ("patch", "message"),
    [
        pytest.param(
            spec(containers=[{"name": "a"}, {"image": "x"}]),
            r"podTemplate\.spec\.containers\[1\] lacks its merge key name",
            id="without-its-key",
        ),
        pytest.param(
            worker(volumeMounts=[{"name": "a"}]),
            r"podTemplate\.spec\.containers\[0\]\.volumeMounts\[0\] lacks its merge key mountPath",
            id="below",
        ),
        pytest.param(
            spec(volumes=["data"]), r"podTemplate\.spec\.volumes\[0\] must be an object with name, is 'data'",
            id="no-object",
        ),
        pytest.param(
            spec(volumes=[{"name": "a", "$patch": "remove"}]),
            r"podTemplate\.spec\.volumes\[0\]\.\$patch is 'remove': write replace or delete",
            id="a-directive-that-is-none",
        ),
        pytest.param({"$patch": 1}, r"podTemplate\.\$patch is 1", id="at-the-root"),
    ],
)  # fmt: skip
def test_what_cannot_be_merged_is_named(patch: Json, message: str) -> None:
    with pytest.raises(InvalidSpec, match=message):
        merge(worker(), patch)


words = st.sampled_from("abc")
scalars = st.one_of(st.integers(0, 3), words, st.booleans())
directives = st.sampled_from([{}, {}, {"$patch": "delete"}])


@st.composite
def templates(draw: st.DrawFn, *, patch: bool) -> Json:
    """Pod templates with keyed lists at both depths; patches have nulls and directives too."""
    values = st.one_of(scalars, st.none()) if patch else scalars
    more = directives if patch else st.just({})
    objects = st.dictionaries(words, values, max_size=2)

    def items(key: str, fields: st.SearchStrategy[Json]) -> st.SearchStrategy[list[Json]]:
        made = st.builds(lambda name, rest, extra: {key: name, **rest, **extra}, words, fields, more)
        return st.lists(made, max_size=3, unique_by=lambda item: item[key])

    env = items("name", st.builds(lambda value: {"value": value}, words))
    mounts = items("mountPath", st.builds(lambda name: {"name": name}, words))
    containers = st.fixed_dictionaries({}, optional={"env": env, "volumeMounts": mounts, "args": st.lists(scalars)})
    volumes = items("name", st.sampled_from([{"emptyDir": {}}, {"secret": {"secretName": "s"}}]))
    fields = {"containers": items("name", containers), "volumes": volumes, "nodeSelector": objects, "affinity": objects}
    return {"spec": draw(st.fixed_dictionaries({}, optional=fields))}


@given(base=templates(patch=False))
def test_an_empty_patch_is_the_identity(base: Json) -> None:
    assert merge(base, {}) == base
    assert merge(base, {"spec": {}}) == base


@given(base=templates(patch=False), patch=templates(patch=True))
def test_merging_twice_is_merging_once(base: Json, patch: Json) -> None:
    once = merge(base, patch)
    assert merge(once, patch) == once


@given(base=templates(patch=False))
def test_a_template_over_itself_is_itself(base: Json) -> None:
    assert merge(base, base) == base


@given(base=templates(patch=False), patch=templates(patch=True))
def test_no_directive_and_no_null_is_left(base: Json, patch: Json) -> None:
    def clean(value: Any) -> bool:
        if isinstance(value, dict):
            return "$patch" not in value and all(it is not None and clean(it) for it in value.values())
        return all(map(clean, value)) if isinstance(value, list) else True

    assert clean(merge(base, patch))
