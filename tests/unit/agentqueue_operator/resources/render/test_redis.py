"""The rendered objects of the managed Redis, and the connection to an external one."""

import base64
import json
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given as hypothesis_given
from hypothesis import strategies as st

from agentqueue.service import environment
from agentqueue_operator.resources.render import (
    redis_name,
)
from agentqueue_operator.resources.render.redis import quote_value
from tests.support import resources
from tests.support.rendering import (
    IN_CLUSTER,
    UPSTASH,
    decoded,
    find,
    kinds,
    pods,
    redis_conf,
    rendered,
    template,
    variables,
)


def test_redis_keeps_every_job_and_refuses_jobs_when_it_is_full() -> None:
    lines = redis_conf()
    for line in ("appendonly yes", "appendfsync always", 'save ""', "maxmemory-policy noeviction", "dir /data"):
        assert line in lines
    assert not any(line.startswith("maxmemory ") for line in lines)
    assert "appendfsync everysec" in redis_conf(resources.managed(persistence={"appendfsync": "everysec"}))


@pytest.mark.parametrize(
    ("limit", "maxmemory"), [("1Gi", 805_306_368), ("1500M", 1_125_000_000), ("1e9", 750_000_000), (1_000_000, 750_000)]
)
def test_redis_may_use_three_quarters_of_its_memory(limit: Any, maxmemory: int) -> None:
    assert f"maxmemory {maxmemory}" in redis_conf(resources.managed(resources={"limits": {"memory": limit}}))
    assert not any(
        it.startswith("maxmemory ") for it in redis_conf(resources.managed(resources={"limits": {"cpu": 1}}))
    )


def test_the_users_configuration_overrides_ours_and_the_password_overrides_both() -> None:
    data = resources.managed(config={"hz": "50", "notify-keyspace-events": ""}, resources={"limits": {"memory": "1Gi"}})
    assert redis_conf(data)[-3:] == [
        "hz 50",
        'notify-keyspace-events ""',
        "include /etc/agentqueue/redis-auth/auth.conf",
    ]


def test_the_password_is_in_one_secret_and_nowhere_else() -> None:
    password = "s3cret-Pa55word"
    manifests = rendered(context=replace(IN_CLUSTER, password=password))
    (secret,) = (
        it
        for it in manifests
        if "s3cret" in json.dumps(it) or base64.b64encode(password.encode()).decode() in json.dumps(it)
    )
    assert (secret["kind"], secret["metadata"]["name"]) == ("Secret", redis_name("case"))
    assert decoded(secret)["password"] == password


def test_the_connection_secret_holds_the_url_and_a_line_of_redis_conf() -> None:
    found = decoded(find(rendered(), "Secret", redis_name("case")))
    host = f"{redis_name('case')}.ns.svc:6379"
    assert found == {
        "password": "p/w@d é",
        "url": f"redis://default:p%2Fw%40d%20%C3%A9@{host}/0",
        "auth.conf": 'requirepass "p\\x2fw\\x40d\\x20\\xc3\\xa9"\n',
    }


def test_without_a_known_password_only_the_connection_secret_is_missing() -> None:
    with_it, without = rendered(), rendered(context=replace(IN_CLUSTER, password=None))
    gone = {(it["kind"], it["metadata"]["name"]) for it in with_it} - {
        (it["kind"], it["metadata"]["name"]) for it in without
    }
    assert gone == {("Secret", redis_name("case"))}


@hypothesis_given(st.text(st.characters(codec="utf-8"), max_size=40))
def test_any_text_survives_redis_conf(text: str) -> None:
    line = quote_value(text)
    assert re.fullmatch(r'"([A-Za-z0-9]|\\x[0-9a-f]{2})*"', line)
    read = re.sub(rb"\\x([0-9a-f]{2})", lambda found: bytes.fromhex(found[1].decode()), line[1:-1].encode())
    assert read.decode() == text


def test_redis_speaks_tls_only_when_asked_to_and_clients_know_its_authority() -> None:
    data = resources.managed(tls={"secretName": "cert"})
    lines = redis_conf(data)
    assert {"port 0", "tls-port 6379", "tls-auth-clients no"} <= set(lines)
    assert "port 6379" in redis_conf()
    assert decoded(find(rendered(data), "Secret", redis_name("case")))["url"].startswith("rediss://")
    assert variables(data)[environment.REDIS_CA_FILE] == "/etc/agentqueue/redis-ca/ca.crt"
    (volume,) = (it for it in template(data)["spec"]["volumes"] if it["name"] == "redis-ca")
    assert volume["secret"] == {"secretName": "cert", "items": [{"key": "ca.crt", "path": "ca.crt"}]}, "no private key"
    assert "--tls" in find(rendered(data), "ConfigMap", redis_name("case"))["data"]["probe.sh"]
    assert "--tls" not in find(rendered(), "ConfigMap", redis_name("case"))["data"]["probe.sh"]


def test_the_volume_is_always_kept() -> None:
    spec = find(rendered(resources.storage(size="9Gi", storageClassName="fast")), "StatefulSet", redis_name("case"))[
        "spec"
    ]
    assert spec["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}
    (claim,) = spec["volumeClaimTemplates"]
    assert claim["spec"]["resources"] == {"requests": {"storage": "9Gi"}}
    assert claim["spec"]["storageClassName"] == "fast"
    (default,) = find(rendered(), "StatefulSet", redis_name("case"))["spec"]["volumeClaimTemplates"]
    assert "storageClassName" not in default["spec"]


def test_redis_has_a_pod_template_and_resources_too() -> None:
    data = resources.managed(
        resources={"limits": {"cpu": "1"}}, podTemplate={"spec": {"nodeSelector": {"disk": "ssd"}}}
    )
    spec = find(rendered(data), "StatefulSet", redis_name("case"))["spec"]["template"]["spec"]
    assert spec["nodeSelector"] == {"disk": "ssd"}
    assert spec["containers"][0]["resources"] == {"limits": {"cpu": "1"}}
    (default,) = find(rendered(), "StatefulSet", redis_name("case"))["spec"]["template"]["spec"]["containers"]
    assert "requests" in default["resources"]


def test_an_external_redis_is_reached_by_the_users_secret_and_nothing_of_ours_is_made() -> None:
    data = resources.resource(redis=UPSTASH)
    made = rendered(data, replace(IN_CLUSTER, password=None))
    assert {"StatefulSet", "ConfigMap"}.isdisjoint(kinds(made))
    assert not any(it["metadata"]["name"] == redis_name("case") for it in made)
    assert variables(data)[environment.REDIS_URL] == {"secretKeyRef": {"name": "s", "key": "url"}}
    assert environment.REDIS_TLS not in variables(data)


def test_tls_and_sentinels_reach_workers_and_console_alike() -> None:
    tls = {
        "caSecretRef": {"name": "ca", "key": "pem"},
        "clientCertificateSecretName": "client",
        "insecureSkipVerify": True,
    }
    sentinel = {"masterName": "m", "nodes": ["h:1", "i:2"], "passwordSecretRef": {"name": "sp", "key": "k"}}
    data = resources.resource(redis={"external": {"urlSecretRef": {"name": "s"}, "tls": tls, "sentinel": sentinel}})
    wanted = {
        environment.REDIS_URL: {"secretKeyRef": {"name": "s", "key": "url"}},
        environment.REDIS_TLS: "true",
        environment.REDIS_CA_FILE: "/etc/agentqueue/redis-ca/ca.crt",
        environment.REDIS_CERT_FILE: "/etc/agentqueue/redis-client/tls.crt",
        environment.REDIS_KEY_FILE: "/etc/agentqueue/redis-client/tls.key",
        environment.REDIS_INSECURE_SKIP_VERIFY: "true",
        environment.REDIS_SENTINEL_NODES: "h:1,i:2",
        environment.REDIS_SENTINEL_MASTER: "m",
        environment.REDIS_SENTINEL_PASSWORD: {"secretKeyRef": {"name": "sp", "key": "k"}},
    }
    assert set(wanted) == set(environment.CONNECTION), "all that says how Redis is reached"
    for spec in pods(rendered(data)):
        found = {it["name"]: it.get("value", it.get("valueFrom")) for it in spec["containers"][0]["env"]}
        assert wanted.items() <= found.items()
        assert {"redis-ca", "redis-client"} <= {it["name"] for it in spec["volumes"]}
        assert {"redis-ca", "redis-client"} <= {it["name"] for it in spec["containers"][0]["volumeMounts"]}


def test_tls_alone_asks_for_tls_and_sentinels_need_no_password() -> None:
    sentinel = {"masterName": "m", "nodes": ["h:1"]}
    data = resources.resource(redis={"external": {"urlSecretRef": {"name": "s"}, "tls": {}, "sentinel": sentinel}})
    found = variables(data)
    assert found[environment.REDIS_TLS] == "true"
    assert not {environment.REDIS_CA_FILE, environment.REDIS_CERT_FILE, environment.REDIS_SENTINEL_PASSWORD} & set(
        found
    )
    assert [it["name"] for it in template(data)["spec"]["volumes"]] == ["tmp"]
