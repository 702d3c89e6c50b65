"""Loading of YAML files: every problem has its line, the nearest valid key and a correction."""

import base64
from pathlib import Path

import pytest

from agentqueue.errors import AgentQueueError, InvalidSpec, NotFound
from agentqueue.spec import InvalidResource, load, load_file
from agentqueue.spec.load import MAX_BYTES, MAX_NODES

ROOT = Path(__file__).parents[4]
SAMPLES = sorted((ROOT / "manifests/samples").glob("*.yaml"))

HEAD = """\
apiVersion: agentqueue.dev/v1alpha1
kind: AgentQueue
metadata: {name: travel}
"""
GOOD = f"{HEAD}spec:\n  agents:\n    - {{name: a, handler: 'm:a'}}\n"


def problems(text: str) -> list[str]:
    with pytest.raises(InvalidResource) as caught:
        load(text, "f.yaml")
    return str(caught.value).splitlines()


def wrong(spec: str) -> list[str]:
    """Return the problems of a spec with one agent and the given other fields, all on one line."""
    return problems(f"{HEAD}spec: {{agents: [{{name: a, handler: 'm:a'}}], {spec}}}")


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_the_samples_are_valid(path: Path) -> None:
    assert load_file(path).some()


def test_there_are_samples() -> None:
    assert {path.stem for path in SAMPLES} >= {"agentqueue", "external-redis-tls", "codefrom-configmap", "every-field"}


def test_an_unknown_key_has_line_path_and_nearest_right_key() -> None:
    text = f"{HEAD}spec:\n  agents:\n    - name: a\n      handler: m:a\n      conncurrency: 3\n"
    assert problems(text) == ["f.yaml:8: spec.agents[0].conncurrency: unknown key; did you mean concurrency?"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("agentDefaults: {job_timeout_seconds: 5}", "unknown key; did you mean jobTimeoutSeconds?"),
        ("agentDefaults: {maxReplicas: 5}", "unknown key here; it belongs in scaling.maxReplicas"),
        ("agentDefaults: {jitter: 0.1}", "unknown key here; it belongs in retry.backoff.jitter"),
        ("redis: {managed: {size: 1Gi}}", "unknown key here; it belongs in storage.size"),
        (
            "console: {xyz: 1}",
            "unknown key; known here: enabled, image, replicas, tokenSecretRef, service, resources, ",
        ),
        (
            "agentDefaults: {scaling: {mode: auto}}",
            "must be 'Auto', 'Fixed' or 'External', is \"auto\"; did you mean Auto?",
        ),
        ("agentDefaults: {scaling: {mode: 7}}", "must be 'Auto', 'Fixed' or 'External', is 7"),
        ("agentDefaults: {concurrency: 0}", "must be at least 1, is 0"),
        ("agentDefaults: {concurrency: 1001}", "must be at most 1000, is 1001"),
        ("agentDefaults: {concurrency: '5'}", 'must be a whole number, is "5": write it without quotes'),
        ("agentDefaults: {concurrency: true}", "must be a whole number, is true"),
        ("agentDefaults: {concurrency: 2.5}", "must be a whole number, is 2.5"),
        ("agentDefaults: {image: 2}", 'must be text, is 2: write it in quotes, "2"'),
        ("agentDefaults: {image: ''}", "must have at least 1 characters, has 0"),
        (f"agentDefaults: {{image: {'x' * 513}}}", "must have at most 512 characters, has 513"),
        ("suspend: 'yes'", 'must be true or false, is "yes": write it without quotes'),
        ("agentDefaults: {retry: 3}", "must be an object, is 3"),
        ("agentDefaults: {retry: [1]}", "must be an object, is a list"),
        ("agentDefaults: {env: {A: b}}", "must be a list, is an object"),
        ("agentDefaults: {env: [{name: 1A}]}", "must be letters, digits, underscores, dots and dashes, not beginning"),
        ("agentDefaults: {env: [{name: A, value: x}, {name: A}]}", 'is twice in the list: "A"'),
        (
            "agentDefaults: {onDeadLetter: {agent: a, job: 'a b'}}",
            'dots, colons and dashes, as in send-report; is "a b"',
        ),
        ("networkPolicy: {redis: {allowFrom: [{ipBlock: {cidr: 'a b c'}}]}}", "must be text like ^[0-9a-fA-F:.]+/"),
        ("agentDefaults: {resources: {limits: {cpu: 0.5}}}", 'is 0.5: write it in quotes, "0.5"'),
        (
            "agentDefaults: {resources: {limits: {cpu: 1cpu}}}",
            'must be a quantity, as in "500m", "2" or "1Gi"; is "1cpu"',
        ),
        ("agentDefaults: {rollout: {maxSurge: 25}, rolout: 1}", "unknown key; did you mean rollout?"),
        ("agentDefaults: {rollout: {maxSurge: 101%}}", 'or a percentage from 0 to 100, as in 1 or "25%"; is "101%"'),
        ("agentDefaults: {rollout: {maxSurge: -1}}", 'or a percentage from 0 to 100, as in 1 or "25%"; is -1'),
        ("agentDefaults: {rollout: {maxSurge: true}}", 'or a percentage from 0 to 100, as in 1 or "25%"; is true'),
        ("agentDefaults: {podTemplate: {metadata: {labels: [a]}}}", "must be an object, is a list"),
        ("redis: {managed: {storage: {size: 0Gi}}}", 'must be a size above zero, as in 10Gi; is "0Gi"'),
        ('redis: {managed: {config: {hz: "1\\nx"}}}', "must be text on one line"),
        ("redis: {external: {}}", "is required"),
        (f"redis: {{external: {{urlSecretRef: {{name: {'s' * 254}}}}}}}", "must have at most 253 characters, has 254"),
    ],
)
def test_wrong_values_are_told_with_what_to_write(spec: str, message: str) -> None:
    (line,) = wrong(spec)
    assert line.startswith("f.yaml:4: spec.")
    assert message in line


def test_a_long_wrong_value_is_shortened() -> None:
    (line,) = wrong(f"agentDefaults: {{scaling: {{mode: {'x' * 100}}}}}")
    assert f'is "{"x" * 57}..."' in line


def test_the_first_of_two_doubles_is_not_blamed() -> None:
    text = f"{HEAD}spec:\n  agents:\n    - {{name: a, handler: 'm:a'}}\n    - {{name: a, handler: 'm:b'}}\n"
    assert problems(text) == ['f.yaml:7: spec.agents[1].name: is twice in the list: "a"']


def test_doubles_in_a_set_are_refused() -> None:
    external = "urlSecretRef: {name: s}, sentinel: {masterName: m, nodes: ['a:1', 'a:1']}"
    assert wrong(f"redis: {{external: {{{external}}}}}") == [
        'f.yaml:4: spec.redis.external.sentinel.nodes[1]: is twice in the list: "a:1"'
    ]


def test_all_errors_come_at_once_in_the_order_of_the_file() -> None:
    text = f"{HEAD}spec:\n  suspnd: true\n  agents:\n    - nam: a\n      handler: 1\n---\n- 5\n---\nkind: X\n"
    assert problems(text) == [
        "f.yaml:5: spec.suspnd: unknown key; did you mean suspend?",
        "f.yaml:7: spec.agents[0].name: is required",
        "f.yaml:7: spec.agents[0].nam: unknown key; did you mean name?",
        'f.yaml:8: spec.agents[0].handler: must be text, is 1: write it in quotes, "1"',
        "f.yaml:10: a document must be an object with apiVersion and kind, is a list",
        (
            "f.yaml:12: apiVersion and kind are required; for an AgentQueue: apiVersion: agentqueue.dev/v1alpha1, "
            "kind: AgentQueue"
        ),
    ]


def test_a_list_of_wrong_agents_is_not_also_too_short() -> None:
    text = f"{HEAD}spec:\n  agents:\n    - {{name: a}}\n"
    assert problems(text) == ["f.yaml:6: spec.agents[0].handler: is required"]
    assert problems(f"{HEAD}spec: {{agents: []}}") == ["f.yaml:4: spec.agents: must have at least 1 items, has 0"]


def test_a_problem_of_an_absent_part_points_to_the_nearest_key_above() -> None:
    assert problems(HEAD) == ["f.yaml:1: spec: is required"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "f.yaml:1: not YAML: expected ',' or ']', but got '<stream end>'"),
        ("a: 1\na: 2", 'f.yaml:2: not YAML: found duplicate key "a" with value "2" (original value: "1")'),
        (
            "x:\n\ta: b",
            "f.yaml:2: not YAML: found character '\\t' that cannot start any token: indent with spaces, not tabs",
        ),
        ("x: \x01", "f.yaml: not YAML: unacceptable character #x0001: special characters are not allowed"),
        (f"x: {'[' * 70}{']' * 70}", "f.yaml: nested deeper than 64 or with too many aliases"),
        (f"x: {'[' * 600}{']' * 600}", "f.yaml: nested deeper than 64 or with too many aliases"),
        ("x" * (MAX_BYTES + 1), "f.yaml: larger than 3 MiB"),
    ],
    ids=["unclosed", "double-key", "tab", "control", "deep", "very-deep", "large"],
)
def test_what_is_not_usable_yaml_is_told_with_its_line(text: str, message: str) -> None:
    assert problems(text) == [message]


def test_aliases_of_aliases_do_not_fill_the_memory() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    assert MAX_NODES < 10**8
    assert problems("\n".join(lines)) == ["f.yaml: nested deeper than 64 or with too many aliases"]


def test_yaml_is_read_as_kubectl_reads_it() -> None:
    (queue,) = load(GOOD.replace("spec:", "spec:\n  suspend: on")).queues
    assert queue.spec.suspend is True
    text = GOOD.replace(
        "{name: travel}", "{name: travel, creationTimestamp: 2024-01-01T00:00:00Z, annotations: {1: b}}"
    )
    (queue,) = load(text).queues
    assert queue.metadata.creation_timestamp == "2024-01-01T00:00:00Z"
    assert queue.metadata.annotations == {"1": "b"}


def test_a_key_without_a_value_is_absent() -> None:
    (queue,) = load(GOOD.replace("spec:", "spec:\n  suspend:\n  agentDefaults: ~")).queues
    assert (queue.spec.suspend, queue.spec.agent_defaults) == (False, None)


def test_a_text_alone_is_no_document() -> None:
    assert problems("agentqueue") == ['f.yaml: a document must be an object with apiVersion and kind, is "agentqueue"']


def test_keys_that_yaml_takes_for_booleans_are_text() -> None:
    (other,) = load("apiVersion: v1\nkind: ConfigMap\ndata: {on: x}").others
    assert other["data"] == {"true": "x"}


@pytest.mark.parametrize("value", [".nan", "-.inf", "!thing x", "!!binary aGk="])
def test_values_that_json_does_not_have_are_refused(value: str) -> None:
    lines = problems(GOOD.replace("spec:", f"spec:\n  suspend: {value}"))
    assert lines[0].startswith("f.yaml:5: spec.suspend: JSON can't represent ")


@pytest.mark.parametrize("value", ["12345678901234567890123", "-0x8000000000000001", "18446744073709551616"])
def test_an_integer_that_the_api_server_would_round_is_refused(value: str) -> None:
    lines = problems(GOOD.replace("spec:", f"spec:\n  suspend: {value}"))
    assert lines[0] == "f.yaml:5: spec.suspend: an integer over 64 bits would be rounded; write it in quotes"


def test_a_key_that_is_there_as_a_number_and_as_text_is_refused() -> None:
    assert problems(GOOD.replace("{name: travel}", "{name: travel, annotations: {1: a, '1': b}}")) == [
        "f.yaml:3: metadata.annotations.1: duplicate key, once with quotes; remove one"
    ]


def test_floats_and_merged_keys_are_read() -> None:
    defaults = "  agentDefaults: {retry: {backoff: &b {jitter: 0.5}}}"
    text = (
        f"{HEAD}spec:\n{defaults}\n  agents:\n    - name: a\n      handler: m:a\n      retry: {{backoff: {{<<: *b}}}}\n"
    )
    (queue,) = load(text).queues
    retry = queue.spec.agents[0].retry
    assert retry is not None
    assert retry.backoff is not None
    assert retry.backoff.jitter == 0.5


def test_other_documents_come_along_and_empty_ones_do_not() -> None:
    loaded = load(f"---\n---\napiVersion: v1\nkind: Secret\nmetadata: {{name: s}}\n---\n{GOOD}---\n# nothing\n")
    assert loaded.one().metadata.name == "travel"
    assert [other["kind"] for other in loaded.others] == ["Secret"]


def test_a_wrong_kind_or_version_of_ours_is_not_taken_for_another_document() -> None:
    assert problems(GOOD.replace("kind: AgentQueue", "kind: AgentQeue")) == [
        "f.yaml:2: kind: must be 'AgentQueue', is \"AgentQeue\"; did you mean AgentQueue?"
    ]
    assert problems(GOOD.replace("v1alpha1", "v1")) == [
        (
            "f.yaml:1: apiVersion: must be 'agentqueue.dev/v1alpha1', is \"agentqueue.dev/v1\"; "
            "did you mean agentqueue.dev/v1alpha1?"
        )
    ]


def test_one_wants_exactly_one() -> None:
    with pytest.raises(InvalidSpec, match=r"f.yaml: has no AgentQueue \(found: ConfigMap\); write apiVersion"):
        load("apiVersion: v1\nkind: ConfigMap", "f.yaml").one()
    with pytest.raises(InvalidSpec, match=r"has no AgentQueue \(found: nothing\)"):
        load("").one()
    with pytest.raises(InvalidSpec, match=r"has 2 AgentQueues \(travel, other\): keep one per file"):
        load(f"{GOOD}---\n{GOOD.replace('name: travel', 'name: other')}").one()


def test_secrets_and_config_maps_of_the_file_are_at_hand() -> None:
    encoded = base64.b64encode(b"rediss://x").decode()
    text = f"""
apiVersion: v1
kind: Secret
metadata: {{name: s}}
data: {{url: {encoded}}}
stringData: {{port: 6379}}
---
apiVersion: v1
kind: ConfigMap
metadata: {{name: c}}
data: {{"agents.py": "x = 1"}}
---
apiVersion: v1
kind: Secret
metadata: {{name: bad}}
data: {{url: "rediss://x"}}
---
apiVersion: v1
kind: Secret
"""
    loaded = load(text, "f.yaml")
    assert loaded.secret("s") == {"url": "rediss://x", "port": "6379"}
    assert loaded.config_map("c") == {"agents.py": "x = 1"}
    assert loaded.secret("c") is None
    assert loaded.config_map("s") is None
    with pytest.raises(
        InvalidSpec, match=r"f.yaml: Secret bad: data.url is not base64-encoded text: write plain text under"
    ):
        loaded.secret("bad")


def test_with_the_old_resource_changes_are_checked_too() -> None:
    old = load(GOOD.replace("spec:", "spec:\n  redis: {managed: {storage: {size: 2Gi}}}"))
    with pytest.raises(InvalidResource, match=r"storage\.size can only grow"):
        load(GOOD, old=old)
    assert load(GOOD.replace("name: travel", "name: other"), old=old).one().metadata.name == "other"
    with pytest.raises(InvalidResource, match=r"metadata: must be an object"):
        load(GOOD.replace("{name: travel}", "5"), old=old)


def test_a_file_that_is_not_there_or_not_text_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"gone.yaml: no such file"):
        load_file(tmp_path / "gone.yaml")
    with pytest.raises(InvalidSpec, match="can't be read as text"):
        load_file(tmp_path)
    (tmp_path / "x.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidSpec, match="can't be read as text"):
        load_file(tmp_path / "x.yaml")


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(f"\ufeff{GOOD}", encoding="utf-8")
    assert load_file(tmp_path / "x.yaml").one().metadata.name == "travel"


def test_without_ruamel_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ruamel.yaml", None)
    with pytest.raises(AgentQueueError, match=r"pip install 'agentqueue\[cli\]'"):
        load(GOOD)
