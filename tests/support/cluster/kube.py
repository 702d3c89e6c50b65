"""The tests' client: objects as the API has them, any kind by any of its names, and waiting that explains itself."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from tests.support.cluster.access import Access

T = TypeVar("T")
Object = dict[str, Any]
Predicate = Callable[[Object], bool]

DISCOVERY = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
MANAGER = "tests"
"""The field manager of what tests apply."""


class Cluster(Protocol):
    """What every test can count on, whoever's cluster it runs on."""

    @property
    def kubeconfig(self) -> Path:
        """A kubeconfig with all rights."""

    @property
    def access(self) -> Access:
        """The same, taken apart."""

    @property
    def host(self) -> str:
        """An address of this machine that what runs in the cluster can reach, if there is one."""

    def kubectl(self, *arguments: str, timeout: float = 60) -> str:
        """Standard output of kubectl."""

    def load(self, archive: Path) -> None:
        """Put an image onto every node."""


class ApiError(Exception):
    """The API server's refusal: HTTP status, reason (such as AlreadyExists) and message."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status, self.reason, self.message = status, reason, message


class ConditionNotMet(AssertionError):
    """An object did not become what a test waited for; the message has all that the cluster tells about it."""


@dataclass(frozen=True)
class Resource:
    """A kind, and where its objects are."""

    root: str
    version: str
    kind: str
    plural: str
    namespaced: bool
    names: frozenset[str]

    def path(self, namespace: str, name: str = "") -> str:
        """The path of one object, or of all without a name."""
        parts = [self.root, *(["namespaces", namespace] if self.namespaced else []), self.plural, name]
        return "/".join(part for part in parts if part)


class Kube:
    """A client bound to a namespace; the objects' own namespace goes first where they name one."""

    def __init__(self, cluster: Cluster, namespace: str = "default") -> None:
        self.cluster, self.namespace = cluster, namespace
        self._http = cluster.access.async_client()
        self._known: Sequence[Resource] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        await self._http.aclose()

    async def request(self, verb: str, path: str, body: object = None, **options: Any) -> Any:
        """The decoded answer to an HTTP request; text for what is not JSON. Raises ApiError."""
        content = None if body is None else json.dumps(body)
        headers = {"Content-Type": options.pop("content_type", "application/json"), **options.pop("headers", {})}
        response = await self._http.request(verb, path, content=content, headers=headers, params=options)
        is_json = "json" in response.headers.get("content-type", "")
        if response.is_error:
            status = response.json() if is_json else {"message": response.text}
            raise ApiError(response.status_code, status.get("reason", ""), status.get("message", ""))
        return response.json() if is_json else response.text

    async def get(self, kind: str, name: str) -> Object:
        """One object. Raises ApiError with status 404 if there is none."""
        found: Object = await self.request("GET", await self._path(kind, name))
        return found

    async def find(self, kind: str, name: str) -> Object | None:
        """One object, None if there is none."""
        try:
            return await self.get(kind, name)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def list(self, kind: str, *, labels: str = "", fields: str = "") -> Sequence[Object]:
        """All objects of a kind in the namespace, by label and field selector."""
        found = await self.request("GET", await self._path(kind), labelSelector=labels, fieldSelector=fields)
        items: list[Object] = found["items"]
        return items

    async def create(self, manifest: Mapping[str, Any]) -> Object:
        """The object as created."""
        resource = await self._resource_of(manifest)
        path = resource.path(manifest["metadata"].get("namespace", self.namespace))
        created: Object = await self.request("POST", path, manifest)
        return created

    async def apply(self, *manifests: Mapping[str, Any]) -> None:
        """Server-side apply, forced."""
        for manifest in manifests:
            meta = manifest["metadata"]
            path = (await self._resource_of(manifest)).path(meta.get("namespace", self.namespace), meta["name"])
            await self._apply(path, manifest)

    async def patch(self, kind: str, name: str, changes: Mapping[str, Any], *, subresource: str = "") -> Object:
        """The object after a JSON merge patch."""
        path = await self._path(kind, name) + (f"/{subresource}" if subresource else "")
        patched: Object = await self.request("PATCH", path, changes, content_type="application/merge-patch+json")
        return patched

    async def delete(self, kind: str, name: str, *, grace: int | None = None) -> None:
        """Ask for an object's end; `grace` seconds for a pod. Done already is as good."""
        options = {"propagationPolicy": "Background"} | ({} if grace is None else {"gracePeriodSeconds": grace})
        try:
            await self.request("DELETE", await self._path(kind, name), options)
        except ApiError as error:
            if error.status != 404:
                raise

    async def evict(self, pod: str) -> None:
        """Evict a pod as a drain does. Raises ApiError with status 429 where a disruption budget forbids it."""
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod}}
        await self.request("POST", await self._path("pod", pod) + "/eviction", eviction)

    async def logs(self, pod: str, container: str = "", *, previous: bool = False) -> str:
        """A container's log, or that of the one before its last restart."""
        options = {"container": container, "previous": str(previous).lower()}
        return str(await self.request("GET", await self._path("pod", pod) + "/log", **options))

    async def run(self, pod: str, *command: str) -> str:
        """Standard output of a command in a running pod."""
        return await self.kubectl("exec", pod, "--", *command)

    async def kubectl(self, *arguments: str, timeout: float = 60) -> str:
        """Standard output of kubectl in the namespace."""
        given = (f"--namespace={self.namespace}", *arguments)
        return await asyncio.to_thread(self.cluster.kubectl, *given, timeout=timeout)

    async def watch(self, kind: str, **options: str) -> AsyncIterator[Object]:
        """Events `{type, object}` as they come."""
        params = {"watch": "true", **options}
        async with self._http.stream("GET", await self._path(kind), params=params, timeout=None) as response:
            async for line in response.aiter_lines():
                yield json.loads(line)

    async def until(
        self, kind: str, name: str, holds: Predicate, *, timeout: float = 60, what: str | None = None
    ) -> Object:
        """The object once `holds(object)`. Raises ConditionNotMet after `timeout` seconds."""

        async def look() -> Object | None:
            found = await self.find(kind, name)
            return found if found and holds(found) else None

        wanted = what or holds.__doc__ or holds.__name__
        return await self._poll(look, timeout, f"{kind} {name} after {timeout:g} s: not {wanted}", kind, name)

    async def until_gone(self, kind: str, name: str, *, timeout: float = 60) -> None:
        """Wait for an object's end."""

        async def look() -> bool:
            return await self.find(kind, name) is None

        await self._poll(look, timeout, f"{kind} {name} is still there after {timeout:g} s", kind, name)

    async def report(self, kind: str, name: str) -> str:
        """What Kubernetes tells about an object and its namespace: describe, pods, events, logs."""
        sections = [
            await self._told(f"describe {kind} {name}", "describe", kind, name),
            await self._told("pods", "get", "pods", "--output=wide"),
            await self._told("events", "get", "events", "--sort-by=.lastTimestamp"),
        ]
        for pod in await self.list("pod"):
            for status in pod["status"].get("containerStatuses", []):
                sections += await self._container_logs(pod["metadata"]["name"], status)
        return "\n\n".join(sections)

    async def _poll(
        self, look: Callable[[], Awaitable[T | None]], timeout: float, failure: str, kind: str, name: str
    ) -> T:
        try:
            async with asyncio.timeout(timeout):
                while not (answer := await look()):  # noqa: ASYNC110 - the state is the API server's: no event tells
                    await asyncio.sleep(0.1)
                return answer
        except TimeoutError:
            raise ConditionNotMet(f"{failure}\n{await self.report(kind, name)}") from None

    async def _container_logs(self, pod: str, status: Object) -> Sequence[str]:
        container = status["name"]
        asked = ["logs", pod, f"--container={container}", "--tail=40"]
        told = [await self._told(f"log of {pod}/{container}", *asked)]
        if status["restartCount"]:
            told.append(await self._told(f"log of {pod}/{container} before its restart", *asked, "--previous"))
        return told

    async def _told(self, title: str, *arguments: str) -> str:
        try:
            told = await self.kubectl(*arguments, timeout=20)
        except RuntimeError as error:  # a report says what it can
            told = str(error)
        return f"--- {title}\n{told.strip()}"

    async def _apply(self, path: str, manifest: Mapping[str, Any]) -> None:
        options = {"fieldManager": MANAGER, "force": "true"}
        await self.request("PATCH", path, manifest, content_type="application/apply-patch+yaml", **options)

    async def _path(self, kind: str, name: str = "") -> str:
        return (await self._resource(lambda one: kind.lower() in one.names, kind)).path(self.namespace, name)

    async def _resource_of(self, manifest: Mapping[str, Any]) -> Resource:
        wanted = manifest["apiVersion"], manifest["kind"]
        return await self._resource(lambda one: (one.version, one.kind) == wanted, "{}, {}".format(*wanted))

    async def _resource(self, matches: Callable[[Resource], bool], asked: str) -> Resource:
        found = next(filter(matches, self._known), None)
        if found is None:  # a definition may have come since the server was asked
            self._known = await self._discover()
            found = next(filter(matches, self._known), None)
        if found is None:
            raise LookupError(f"the API server knows no kind {asked!r}")
        return found

    async def _discover(self) -> Sequence[Resource]:
        return [
            resource
            for prefix in ("/api", "/apis")
            for group in (await self.request("GET", prefix, headers={"Accept": DISCOVERY}))["items"]
            for version in group["versions"]
            for resource in _resources(prefix, group["metadata"].get("name", ""), version)
        ]


def _resources(prefix: str, group: str, version: Object) -> Sequence[Resource]:
    group_version = "/".join(filter(None, [group, version["version"]]))
    return [
        Resource(
            root=f"{prefix}/{group_version}",
            version=group_version,
            kind=one["responseKind"]["kind"],
            plural=one["resource"],
            namespaced=one["scope"] == "Namespaced",
            names=frozenset(
                name.lower()
                for name in (
                    one["responseKind"]["kind"],
                    one["resource"],
                    f"{one['resource']}.{group}",
                    *one.get("shortNames", []),
                )
            ),
        )
        for one in version["resources"]
    ]


def has_condition(kind: str, status: str = "True", *, reason: str | None = None) -> Predicate:
    """A predicate: the object has this condition, for its present generation if the condition says which."""

    def holds(found: Object) -> bool:
        generation = found["metadata"].get("generation")
        return any(
            (one["type"], one["status"]) == (kind, status)
            and reason in (None, one.get("reason"))
            and one.get("observedGeneration", generation) == generation
            for one in found.get("status", {}).get("conditions") or ()
        )

    holds.__doc__ = f"{kind}={status}" + (f" for {reason}" if reason else "")
    return holds


def is_ready(found: Object) -> bool:
    """Ready."""
    return has_condition("Ready")(found)


def is_rolled_out(found: Object) -> bool:
    """rolled out: every replica wanted is of the newest template and available, and no other is left."""
    status, wanted = found.get("status", {}), found["spec"].get("replicas", 1)
    counted = (status.get("replicas", 0), status.get("updatedReplicas", 0), status.get("availableReplicas", 0))
    return status.get("observedGeneration") == found["metadata"]["generation"] and counted == (wanted,) * 3


def terminated(found: Object) -> Object | None:
    """How a pod's first container last ended, None if it never did."""
    status = found["status"].get("containerStatuses", [{}])[0]
    states = status.get("state", {}), status.get("lastState", {})
    return next((state["terminated"] for state in states if "terminated" in state), None)
