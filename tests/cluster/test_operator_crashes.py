"""The operator dies in the middle of its work, at each of its writes in turn: its successor comes to the same end."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import pytest

from agentqueue_operator.controller.ports import Cluster
from agentqueue_operator.resources.kinds import POD_MONITOR, PRUNED
from agentqueue_operator.resources.render import Images
from tests.support.cluster import kube as support
from tests.support.cluster.kube import Kube, Object
from tests.support.operator import Operator, agent, agent_queue, code, install_crd, owned, run_operator, settled, until

AQ = "agentqueue"
NOWHERE: Final = {"spec": {"nodeSelector": {"example.com/no-such-node": "true"}}}
"""Pods that never run: what is looked at is what the operator writes."""
WRITES: Final = ("create", "apply", "patch", "patch_status", "delete", "tell")
KINDS: Final = [kind.plural for kind in PRUNED if kind is not POD_MONITOR]


class Mortal:
    """A cluster for an operator that dies at its n-th write: before the API server has it, or before its answer."""

    def __init__(self, inner: Cluster, at: int, *, answered: bool) -> None:
        self._inner = inner
        self._left = at
        self._answered = answered
        self.died = asyncio.Event()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        call = getattr(self._inner, name)

        async def made(*args: Any, **kwargs: Any) -> Any:
            if name in WRITES:
                self._left -= 1
                if self._left == 0 and self._answered:
                    await call(*args, **kwargs)
                if self._left <= 0:
                    self.died.set()
            if self.died.is_set():
                await asyncio.Event().wait()
            return await call(*args, **kwargs)

        return made


def demo() -> Object:
    managed = {"podTemplate": NOWHERE}
    return agent_queue(redis={"managed": managed}, agents=[agent("greetings", podTemplate=NOWHERE)])


def essence(found: Any, path: tuple[str, ...] = ()) -> Any:
    """What must be alike: all but what the API server or chance gives."""
    if isinstance(found, dict):
        return {key: essence(value, (*path, key)) for key, value in found.items() if not is_chance(key, path)}
    if isinstance(found, list):
        return [essence(item, path) for item in found]
    return found


def is_chance(key: str, path: tuple[str, ...]) -> bool:
    given = {"uid", "resourceVersion", "creationTimestamp", "managedFields", "generation", "clusterIP", "clusterIPs"}
    return (
        key in given
        or key == "status"
        or (key == "data" and len(path) == 0)  # passwords; a ConfigMap's content is in the hash of what is rendered
        or "hash" in key
        or key.startswith("deployment.kubernetes.io/")
    )


async def objects(kube: Kube) -> Object:
    """All that belongs to the AgentQueue."""
    return {f"{kind} {one['metadata']['name']}": essence(one) for kind in KINDS for one in await owned(kube, kind)}


@contextlib.asynccontextmanager
async def an_agent_queue(kube: Kube) -> AsyncIterator[None]:
    """There for the while; nothing of it is left after it."""
    await kube.apply(demo())
    yield
    await kube.delete(AQ, "demo")

    async def is_gone() -> bool:
        return not await objects(kube) and not await owned(kube, "pods")

    await until(is_gone)
    for one in await kube.list("pvc"):
        await kube.delete("pvc", one["metadata"]["name"])


@contextlib.asynccontextmanager
async def an_operator(cluster: support.Cluster, kube: Kube, images: Images, **options: Any) -> AsyncIterator[Operator]:
    async with run_operator(cluster.kubeconfig, kube.namespace, images, **options) as operator:
        yield operator


@pytest.mark.timeout(600)
async def test_after_a_crash_at_any_write_the_end_is_the_same(
    cluster: support.Cluster, kube: Kube, aq_images: Images
) -> None:
    await install_crd(kube)
    await kube.apply(code())
    async with an_operator(cluster, kube, aq_images) as undisturbed, an_agent_queue(kube):

        async def has_objects() -> bool:
            return bool(await objects(kube))

        await until(has_objects)
        await settled(undisturbed)
        expected = await objects(kube)
        writes = undisturbed.writes()
    assert len(expected) >= 8
    assert writes >= len(expected)
    for number in range(1, len(expected) + 2):
        for answered in (False, True):
            mortals: list[Mortal] = []

            def mortal(inner: Cluster, at: int = number, after: bool = answered, made: Any = mortals) -> Any:
                made.append(Mortal(inner, at, answered=after))
                return made[0]

            await one_crash(kube, aq_images, expected, mortal, mortals)


async def one_crash(
    kube: Kube, images: Images, expected: Object, mortal: Callable[[Cluster], Any], mortals: list[Mortal]
) -> None:
    cluster = kube.cluster

    async with contextlib.AsyncExitStack() as stack:
        async with an_operator(cluster, kube, images, wrap=mortal) as first:
            await stack.enter_async_context(an_agent_queue(kube))
            async with asyncio.timeout(30):
                await mortals[0].died.wait()
            await first.kill()
        before = {one["metadata"]["name"]: one["data"] for one in await owned(kube, "secrets")}
        async with an_operator(cluster, kube, images) as second:

            async def is_as_expected() -> bool:
                return await objects(kube) == expected

            await until(is_as_expected, timeout=30)
            await settled(second)
            assert await objects(kube) == expected
            after = {one["metadata"]["name"]: one["data"] for one in await owned(kube, "secrets")}
            assert before.items() <= after.items()  # a password that is out is never made anew
            await stack.aclose()
