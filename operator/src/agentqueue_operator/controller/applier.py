"""Applies an AgentQueue's objects: carries out the plan and remembers which objects the API server rejected."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Final, assert_never

from agentqueue_operator.controller.ports import ApiRefused, Cluster
from agentqueue_operator.controller.status.api_errors import explain_api_error
from agentqueue_operator.controller.status.reasons import Problem, Reason
from agentqueue_operator.resources.comparison import HASH_ANNOTATION, MANAGER
from agentqueue_operator.resources.drift import find_drift
from agentqueue_operator.resources.kinds import VOLUME_CLAIM, Kind, Object, QueueRef
from agentqueue_operator.resources.plan import (
    HANDOVER,
    KINDS,
    ORDER,
    Action,
    Apply,
    AwaitDeletion,
    Delete,
    Foreign,
    Grow,
    HandOver,
    Key,
    Skip,
    fingerprint,
    handover_manifest,
    has_grown,
    is_newer,
    key_of,
    plan,
    without_live_object,
)

RETRY_REJECTED_S: Final = (5.0, 60.0)
"""First and maximum delay before a rejected object is applied again. A changed object is applied immediately."""
TRUST_READ_S: Final = 60.0
"""Seconds to trust a directly read object of a kind that is not watched: one request per object and minute."""
REQUEUE_S: Final = 1.0
"""Requeue delay for transient conflicts, in seconds."""
OPERATOR_MANAGERS: Final = (MANAGER, HANDOVER)
"""Field managers of the operator."""


@dataclass(slots=True)
class _Rejection:
    """A manifest that the API server rejected."""

    manifest_hash: str
    problem: Problem
    wait_s: float
    retry_at: float
    """Monotonic seconds."""


@dataclass(slots=True)
class ApplyResult:
    """Result of applying the objects of an AgentQueue."""

    problems: list[Problem] = field(default_factory=list)
    """Objects that are not in their desired state (blocking), and fields that others added to them (warnings)."""
    storage_problem: Problem | None = None
    """Why the storage of Redis cannot grow."""
    undone: list[str] = field(default_factory=list)
    """Descriptions of changes by others that were undone."""
    requeue_after_s: float | None = None
    """Delay until the remaining objects can be applied, in seconds; None: nothing remains."""
    applied: list[Key] = field(default_factory=list)
    deleted: list[Key] = field(default_factory=list)

    def requeue(self) -> None:
        """Request another reconcile soon, because something could not be done yet."""
        self.requeue_after_s = REQUEUE_S


class Applier:
    """Applies the objects of one AgentQueue.

    Args:
        cluster: the API server.
        ref: the AgentQueue.
        clock: returns monotonic seconds.
        unwatched: kinds that the cache does not contain.
    """

    def __init__(
        self, cluster: Cluster, ref: QueueRef, *, clock: Callable[[], float], unwatched: frozenset[Kind] = frozenset()
    ) -> None:
        self._cluster = cluster
        self._ref = ref
        self._clock = clock
        self._unwatched = frozenset(kind.kind for kind in unwatched)
        self._owner = ""
        """uid of the AgentQueue whose objects were applied last."""
        self._settled: dict[Key, str] = {}
        """Fingerprint of each object that was found in its desired state."""
        self._rejections: dict[Key, _Rejection] = {}
        self._latest: dict[Key, Object] = {}
        """Results of applies that the cache does not contain yet."""
        self._read_at: dict[Key, float] = {}
        """When an unwatched object was read last, in monotonic seconds."""
        self._spec_fields: dict[Key, frozenset[str]] = {}
        """The fields of each object's spec that were rendered last."""
        self._drift: dict[Key, tuple[str, list[Problem]]] = {}
        """Fields that others added to an object, with the fingerprint of the object at that time."""

    async def apply_all(self, desired: Sequence[Object], children: Iterable[Object], owner: Object) -> ApplyResult:
        """Apply the desired objects and delete those that are not desired any more.

        A rejected object is reported and the others are still applied.

        Args:
            desired: the rendered manifests.
            children: the objects of the AgentQueue in the cache.
            owner: the AgentQueue.

        Raises:
            ApiUnavailable, NotLeading: nothing more can be done now.
        """
        if owner["metadata"]["uid"] != self._owner:
            # Another AgentQueue of the same name: Kubernetes has deleted the objects of the first one.
            self._owner = owner["metadata"]["uid"]
            self._settled.clear()
            self._spec_fields.clear()
        live = await self._with_uncached(desired, list(children))
        actions = plan(desired, live, owner=owner, settled=self._settled)
        result = ApplyResult()
        for _, group in groupby(actions, _rank):
            await asyncio.gather(*(self._perform(action, result) for action in group))
        keys = {key_of(manifest) for manifest in desired}
        self._spec_fields |= {key_of(manifest): frozenset(manifest.get("spec") or ()) for manifest in desired}
        for memory in (
            self._settled,
            self._rejections,
            self._latest,
            self._read_at,
            self._drift,
            self._spec_fields,
        ):
            for key in memory.keys() - keys:
                memory.pop(key)
        return result

    async def get(self, kind: Kind, name: str) -> Object | None:
        """Return an object in the AgentQueue's namespace, or None if it does not exist."""
        return await self._cluster.get(kind, self._ref.namespace, name)

    def newest(self, cached: Object) -> Object:
        """Return the newest known version of an object: the cache may lag behind the operator's own writes."""
        key = key_of(cached)
        latest = self._latest.get(key)
        if latest is None:
            return cached
        if is_newer(latest, cached):
            return latest
        if cached["kind"] not in self._unwatched:
            del self._latest[key]
        return cached

    async def _with_uncached(self, desired: Sequence[Object], children: list[Object]) -> list[Object]:
        """Return the children and the desired objects that exist outside the cache, which lags and needs our label."""
        cached = [self.newest(one) for one in children if one["kind"] in KINDS]
        missing = [one for one in without_live_object(desired, cached) if not self._is_trusted(one)]
        found = await asyncio.gather(*(self.get(KINDS[one["kind"]], one["metadata"]["name"]) for one in missing))
        for one in filter(None, found):
            if one["kind"] in self._unwatched:
                self._latest[key_of(one)], self._read_at[key_of(one)] = one, self._clock()
        trusted = [self._latest[key_of(one)] for one in without_live_object(desired, cached) if self._is_trusted(one)]
        return [*cached, *trusted, *(one for one in found if one is not None and not self._is_trusted(one))]

    def _is_trusted(self, manifest: Object) -> bool:
        at = self._read_at.get(key_of(manifest))
        return at is not None and self._clock() - at < TRUST_READ_S

    async def _perform(self, action: Action, result: ApplyResult) -> None:
        match action:
            case Skip(live, manifest):
                self._settled[key_of(live)] = fingerprint(live, manifest)
                self._rejections.pop(key_of(live), None)
                result.problems += self._drift_of(live, manifest)
            case Apply(manifest, live):
                undone = self._undone_by_applying(manifest, live)
                await self._try(manifest, result, self._apply)
                result.undone += undone if key_of(manifest) in result.applied else ()
            case HandOver(replicas, manifest):

                async def hand_over(manifest: Object, result: ApplyResult) -> None:
                    # Keep the number while the operator gives up the field, or the Deployment would scale to 1.
                    await self._cluster.apply(handover_manifest(manifest, replicas), manager=HANDOVER)
                    await self._apply(manifest, result)

                await self._try(manifest, result, hand_over)
            case Grow():
                await self._grow_storage(action, result)
            case Delete(live):
                try:
                    await self._cluster.delete(live)
                except ApiRefused as error:
                    self._report(key_of(live), error, result)
                else:
                    result.deleted.append(key_of(live))
            case Foreign(manifest, live):
                owners = [f"{one['kind']} {one['name']}" for one in live["metadata"].get("ownerReferences") or ()]
                message = f"{key_of(manifest)} exists already and belongs to {', '.join(owners) or 'someone else'}"
                result.problems.append(Problem(Reason.FOREIGN_OBJECT, message))
            case AwaitDeletion():
                result.requeue()
            case _:
                assert_never(action)

    async def _try(
        self, manifest: Object, result: ApplyResult, write: Callable[[Object, ApplyResult], Awaitable[None]]
    ) -> None:
        """Write the manifest unless the same one was rejected recently."""
        key = key_of(manifest)
        manifest_hash = str((manifest["metadata"].get("annotations") or {}).get(HASH_ANNOTATION))
        rejection = self._rejections.get(key)
        if rejection is not None and rejection.manifest_hash != manifest_hash:
            rejection = None
        if rejection is not None and self._clock() < rejection.retry_at:
            result.problems.append(rejection.problem)
            return
        try:
            await write(manifest, result)
        except ApiRefused as error:
            problem = explain_api_error(key, error.status, error.message)
            if problem is None:
                result.requeue()
                return
            first_s, max_s = RETRY_REJECTED_S
            wait_s = first_s if rejection is None else min(max_s, rejection.wait_s * 2)
            self._rejections[key] = _Rejection(manifest_hash, problem, wait_s, self._clock() + wait_s)
            result.problems.append(problem)
        else:
            self._rejections.pop(key, None)

    async def _apply(self, manifest: Object, result: ApplyResult) -> None:
        live = await self._cluster.apply(manifest)
        key = key_of(manifest)
        self._settled[key], self._latest[key] = fingerprint(live, manifest), live
        if manifest["kind"] in self._unwatched:
            self._read_at[key] = self._clock()
        result.applied.append(key)

    def _drift_of(self, live: Object, manifest: Object) -> list[Problem]:
        """Return a warning for each field that others added. Computed once for each state of the object."""
        key, state = key_of(live), fingerprint(live, manifest)
        known = self._drift.get(key)
        if known is None or known[0] != state:
            warnings = [
                Problem(Reason.DRIFT, f"{key}: {one.field} was set by {one.manager}", blocking=False)
                for one in find_drift(live, manifest, ours=OPERATOR_MANAGERS)
                if not one.is_ours
            ]
            known = self._drift[key] = (state, warnings)
        return known[1]

    def _undone_by_applying(self, manifest: Object, live: Object | None) -> list[str]:
        """Describe the changes by others that an apply of the manifest undoes."""
        key = key_of(manifest)
        if live is None:
            return [f"{key} was deleted and is created again"] if key in self._settled else []
        took_over_replicas = "replicas" not in self._spec_fields.get(key, {"replicas"})  # from mode External
        return [
            f"{key}: {one.field} was changed by {one.manager} and is set by the operator again"
            for one in find_drift(live, manifest, ours=OPERATOR_MANAGERS)
            if one.is_ours and not (took_over_replicas and one.field == "spec.replicas")
        ]

    async def _grow_storage(self, grow: Grow, result: ApplyResult) -> None:
        """Grow the volume claims, then delete the StatefulSet without its pods, so that it can be created again."""

        async def write(_: Object, result: ApplyResult) -> None:
            for name in grow.claims:
                claim = await self.get(VOLUME_CLAIM, name)
                if claim is not None and not has_grown(claim, grow.size):
                    changes = {"spec": {"resources": {"requests": {"storage": grow.size}}}}
                    await self._cluster.patch(VOLUME_CLAIM, self._ref.namespace, name, changes)
            await self._cluster.delete(grow.live, orphan=True)
            self._settled.pop(key_of(grow.live), None)  # the operator deleted it, not a user
            result.requeue()

        before = len(result.problems)
        await self._try(grow.manifest, result, write)
        for problem in result.problems[before:]:
            result.storage_problem = Problem(Reason.STORAGE_NOT_EXPANDABLE, problem.message, blocking=False)
        del result.problems[before:]
        if result.storage_problem is None or self._settled.get(key_of(grow.live)) == fingerprint(
            grow.live, grow.fallback
        ):
            return
        try:  # apply the rest of the StatefulSet
            await self._apply(grow.fallback, result)
        except ApiRefused as error:
            self._report(key_of(grow.live), error, result)

    def _report(self, key: Key, error: ApiRefused, result: ApplyResult) -> None:
        if problem := explain_api_error(key, error.status, error.message):
            result.problems.append(problem)


def _rank(action: Action) -> int:
    """Return the order of an action. Actions of the same rank run concurrently: one kind; deletions come last."""
    if isinstance(action, Delete):
        return len(ORDER)
    live = action.live if isinstance(action, Skip | AwaitDeletion) else action.manifest
    return ORDER[live["kind"]]
