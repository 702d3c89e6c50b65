"""What rendered manifests do once a cluster has them, with no operator about."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agentqueue.spec import AgentQueue, resolve
from agentqueue_operator.resources.render import Images, RenderContext, console_name, redis_name, render, worker_name
from tests.support import resources
from tests.support.certificates import issue
from tests.support.cluster.images import OPERATOR, REDIS, WORKER, Image
from tests.support.cluster.kube import Kube, Object, is_ready, is_rolled_out
from tests.support.operator import until

PASSWORD = 'it\'s "hard" \\ to $quote; # p/w@d:é'
TOKEN = "a-long-t0ken"
CODE = """
from agentqueue import Agent, Context

agent = Agent("greetings")

@agent.job
async def greet(ctx: Context, name: str) -> str:
    return f"Hello {name} from {ctx.queue}"
"""
ASK = """
import sys, urllib.error, urllib.request
asked = urllib.request.Request(sys.argv[1] + "/api/queue/stats", headers={"Authorization": "Bearer " + sys.argv[2]})
try:
    print(urllib.request.urlopen(asked).status)
except urllib.error.HTTPError as error:
    print(error.code)
except urllib.error.URLError as error:
    print(error.reason)
"""
SUBMIT = """
from agentqueue import SyncClient

with SyncClient() as client:
    print(client.enqueue("greetings", "greet", "Ada").result(timeout=30))
"""


@pytest.fixture
async def images(kube: Kube, load_image: Callable[[Image], str]) -> Images:
    """In a namespace that lets only restricted pods in."""
    label = {"pod-security.kubernetes.io/enforce": "restricted"}
    await kube.patch("namespace", kube.namespace, {"metadata": {"labels": label}})
    return Images(load_image(WORKER), load_image(REDIS), load_image(OPERATOR))


def given(kube: Kube, images: Images) -> RenderContext:
    return RenderContext(
        namespace=kube.namespace,
        images=images,
        replicas={"greetings": 1},
        password=PASSWORD,
        console_token=TOKEN,
    )


def greeter(**spec: Any) -> Object:
    agents = [{"name": "greetings", "handler": "greeter:agent", "codeFrom": {"configMap": {"name": "code"}}}]
    return resources.resource("greeter", agents=agents, **spec)


async def apply(kube: Kube, resource: Object, known: RenderContext) -> None:
    code = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "code"}, "data": {"greeter.py": CODE}}
    await kube.apply(code, *render(resolve(AgentQueue.model_validate(resource)), known))


async def pod_of(kube: Kube, component: str) -> str:
    found = await kube.list("pod", labels=f"agentqueue.dev/component={component}")
    return str(found[0]["metadata"]["name"])


async def until_running(kube: Kube) -> None:
    await kube.until("statefulset", redis_name("greeter"), lambda it: it.get("status", {}).get("readyReplicas") == 1)
    await kube.until("deployment", worker_name("greeter", "greetings"), is_rolled_out)


async def redis_cli(kube: Kube, *command: str) -> str:
    """An answer of the server, asked in its own pod, where the password is in the environment."""
    return (await kube.run(f"{redis_name('greeter')}-0", "redis-cli", *command)).strip()


async def test_workers_run_jobs_on_a_managed_redis_whose_password_nobody_sees(kube: Kube, images: Images) -> None:
    limits = {"resources": {"limits": {"memory": "256Mi"}}}
    await apply(kube, greeter(redis={"managed": limits}), given(kube, images))
    await until_running(kube)
    assert await kube.run(await pod_of(kube, "worker"), "python", "-c", SUBMIT) == "Hello Ada from greetings\n"
    settings = json.loads(await redis_cli(kube, "--json", "config", "get", "appendonly", "appendfsync", "maxmemory*"))
    assert settings["appendonly"] == "yes"
    assert settings["appendfsync"] == "always"
    assert settings["maxmemory"] == str(192 * 1024 * 1024)
    assert settings["maxmemory-policy"] == "noeviction"
    redis = f"{redis_name('greeter')}-0"
    commands = await kube.run(redis, "sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
    assert "redis-server" in commands
    assert "hard" not in commands
    refused = await kube.run(redis, "sh", "-c", "REDISCLI_AUTH= redis-cli ping")
    assert refused.strip() == "NOAUTH Authentication required."


async def test_the_console_answers_who_has_the_token(kube: Kube, images: Images) -> None:
    await apply(kube, greeter(), given(kube, images))
    await kube.until("deployment", console_name("greeter"), is_rolled_out)
    address = f"http://{console_name('greeter')}.{kube.namespace}.svc"
    console = await pod_of(kube, "console")

    async def answers(token: str, status: str) -> bool:
        return (await kube.run(console, "python", "-c", ASK, address, token)).strip() == status

    await until(lambda: answers(TOKEN, "200"))  # no way, then 503, until both Services lead there
    assert await answers("wrong", "401")


async def test_jobs_outlive_the_redis_pod_and_its_statefulset(kube: Kube, images: Images) -> None:
    known = given(kube, images)
    await apply(kube, greeter(), replace(known, replicas={"greetings": 0}))
    await kube.until("statefulset", redis_name("greeter"), lambda it: it.get("status", {}).get("readyReplicas") == 1)
    await redis_cli(kube, "set", "kept", "1")
    await kube.delete("statefulset", redis_name("greeter"))
    await kube.until_gone("pod", f"{redis_name('greeter')}-0")
    await apply(kube, greeter(), replace(known, replicas={"greetings": 0}, password="another"))
    await kube.until("statefulset", redis_name("greeter"), lambda it: it.get("status", {}).get("readyReplicas") == 1)
    assert await redis_cli(kube, "get", "kept") == "1"


async def test_redis_gets_well_when_a_wrong_image_is_mended(kube: Kube, images: Images) -> None:
    """With podManagementPolicy OrderedReady the first pod would stay as it is for ever."""
    known = replace(given(kube, images), replicas={"greetings": 0})
    await apply(kube, greeter(redis={"managed": {"image": "localhost/none:1"}}), known)
    name = f"{redis_name('greeter')}-0"

    def waits(pod: Object) -> bool:
        states = [it["state"] for it in pod["status"].get("containerStatuses", [])]
        return any("Image" in it.get("waiting", {}).get("reason", "") for it in states)

    await kube.until("pod", name, waits)
    await apply(kube, greeter(), known)
    await kube.until("pod", name, is_ready)


def certificate(folder: Path, *hosts: str) -> dict[str, str]:
    """A Secret's data as cert-manager makes it."""
    issued = issue(folder, *hosts)
    cert, key = issued.of("server")
    return {"tls.crt": issued.text(cert), "tls.key": issued.text(key), "ca.crt": issued.text(issued.ca)}


async def test_workers_reach_a_managed_redis_over_tls_and_check_its_certificate(
    kube: Kube, images: Images, tmp_path: Path
) -> None:
    data = certificate(tmp_path, f"{redis_name('greeter')}.{kube.namespace}.svc", "localhost")
    await kube.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "cert"}, "stringData": data})
    await apply(kube, greeter(redis={"managed": {"tls": {"secretName": "cert"}}}), given(kube, images))
    await until_running(kube)
    assert await kube.run(await pod_of(kube, "worker"), "python", "-c", SUBMIT) == "Hello Ada from greetings\n"
    await kube.until("deployment", console_name("greeter"), is_rolled_out)
    plain = await kube.run(f"{redis_name('greeter')}-0", "sh", "-c", "redis-cli ping 2>&1 || true")
    assert "PONG" not in plain
