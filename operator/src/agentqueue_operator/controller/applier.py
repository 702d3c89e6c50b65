"""Keeps an AgentQueue's objects as they are wanted: carries out the plan, and remembers what was refused."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Final, assert_never

from agentqueue_operator.controller.ports import ApiRefused, Cluster
from agentqueue_operator.controller.status.api_errors import refusal
from agentqueue_operator.controller.status.pod_problems import Trouble
from agentqueue_operator.controller.status.reasons import Reason
from agentqueue_operator.resources.comparison import HASH_ANNOTATION, MANAGER
from agentqueue_operator.resources.drift import drift
from agentqueue_operator.resources.kinds import VOLUME_CLAIM, Kind, Object, QueueRef
from agentqueue_operator.resources.plan import (
    HANDOVER,
    KINDS,
    ORDER,
    Action,
    Apply,
    Delete,
    Foreign,
    Grow,
    HandOver,
    Key,
    Skip,
    Wait,
    fingerprint,
    handover,
    has_grown,
    key_of,
    newer,
    plan,
    unseen,
)

REFUSED_S: Final = (5.0, 60.0)
"""After how long a refused object is tried again: the first time, and at most. A change of it is tried at once."""
CONFIRMED_S: Final = 60.0
"""How long an object that no watch shows counts as being as it was read."""
SOON_S: Final = 1.0
"""When to come back for what passes by itself."""
OURS: Final = (MANAGER, HANDOVER)
"""Field managers of the operator."""


@dataclass(slots=True)
class _Refused:
    """An object that the API server does not take."""

    manifest_hash: str
    trouble: Trouble
    wait_s: float
    until: float


@dataclass(slots=True)
class Kept:
    """What came of it."""

    hurdles: list[Trouble] = field(default_factory=list)
    """What is not as it should be, and why."""
    storage: Trouble | None = None
    """Storage that can't grow."""
    undone: list[str] = field(default_factory=list)
    """Changes that others had made and that were undone, in words."""
    foreign: list[Trouble] = field(default_factory=list)
    """What others have put into our objects, and stays there."""
    requeue_after_s: float | None = None
    """When the rest can be done."""
    made: list[Key] = field(default_factory=list)
    """Objects that were applied."""
    deleted: list[Key] = field(default_factory=list)

    def requeue(self) -> None:
        """What is not done yet will be possible soon."""
        self.requeue_after_s = SOON_S


class Keeper:
    """Of one AgentQueue.

    Args:
        cluster: where the objects are.
        ref: the AgentQueue.
        clock: monotonic seconds.
        unwatched: kinds that the cache does not show.
    """

    def __init__(
        self, cluster: Cluster, ref: QueueRef, *, clock: Callable[[], float], unwatched: frozenset[Kind] = frozenset()
    ) -> None:
        self._cluster = cluster
        self._ref = ref
        self._clock = clock
        self._unwatched = frozenset(kind.kind for kind in unwatched)
        self._settled: dict[Key, str] = {}
        self._refused: dict[Key, _Refused] = {}
        self._latest: dict[Key, Object] = {}
        """What an apply gave back and the cache does not show yet."""
        self._confirmed: dict[Key, float] = {}
        self._owner = ""
        """uid of the AgentQueue whose objects were kept last."""
        self._set: dict[Key, frozenset[str]] = {}
        """Which fields of an object's spec were rendered last."""
        self._foreign: dict[Key, tuple[str, tuple[Trouble, ...]]] = {}
        """What others have put into an object, and of which state of it that was said."""

    async def keep(self, wanted: Sequence[Object], children: Iterable[Object], owner: Object) -> Kept:
        """Make what is there what is wanted. What is refused is told, the rest goes on.

        Raises:
            ApiUnavailable, NotLeading: nothing more can be done now.
        """
        if owner["metadata"]["uid"] != self._owner:  # another one of that name: the objects of the first were collected
            self._owner = owner["metadata"]["uid"]
            self._settled.clear()
            self._set.clear()
        live = await self._complete(wanted, list(children))
        actions = plan(wanted, live, owner=owner, settled=self._settled)
        kept = Kept()
        for _, together in groupby(actions, _rank):
            await asyncio.gather(*(self._act(action, kept) for action in together))
        self._set |= {key_of(manifest): frozenset(manifest.get("spec") or ()) for manifest in wanted}
        self._forget({key_of(manifest) for manifest in wanted})
        return kept

    async def get(self, kind: Kind, name: str) -> Object | None:
        """An object of the AgentQueue's namespace."""
        return await self._cluster.get(kind, self._ref.namespace, name)

    async def _complete(self, wanted: Sequence[Object], children: list[Object]) -> list[Object]:
        """With what the cache does not show: it lags, and objects without our label are not in it."""
        shown = [self.newest(one) for one in children if one["kind"] in KINDS]
        missing = [one for one in unseen(wanted, shown) if not self._is_confirmed(one)]
        found = await asyncio.gather(*(self.get(KINDS[one["kind"]], one["metadata"]["name"]) for one in missing))
        for one in filter(None, found):
            if one["kind"] in self._unwatched:
                self._latest[key_of(one)], self._confirmed[key_of(one)] = one, self._clock()
        confirmed = [self._latest[key_of(one)] for one in unseen(wanted, shown) if self._is_confirmed(one)]
        read = [one for one in found if one is not None and not self._is_confirmed(one)]
        return [*shown, *confirmed, *read]

    def _is_confirmed(self, given: Object) -> bool:
        at = self._confirmed.get(key_of(given))
        return at is not None and self._clock() - at < CONFIRMED_S

    def newest(self, shown: Object) -> Object:
        """The object, newer than in the cache where that is behind our own writes."""
        key = key_of(shown)
        latest = self._latest.get(key)
        if latest is None:
            return shown
        if newer(latest, shown):
            return latest
        if shown["kind"] not in self._unwatched:
            del self._latest[key]
        return shown

    def _forget(self, wanted: set[Key]) -> None:
        for memory in (self._settled, self._refused, self._latest, self._confirmed, self._foreign, self._set):
            for key in memory.keys() - wanted:
                memory.pop(key)

    async def _act(self, action: Action, kept: Kept) -> None:
        match action:
            case Skip(live, manifest):
                self._settled[key_of(live)] = fingerprint(live, manifest)
                self._refused.pop(key_of(live), None)
                kept.foreign += self._foreign_in(live, manifest)
            case Apply(manifest, live):
                undone = self._undone(manifest, live)
                await self._try(manifest, kept, self._apply)
                kept.undone += undone if key_of(manifest) in kept.made else ()
            case HandOver(replicas, manifest):
                await self._hand_over(manifest, replicas, kept)
            case Grow():
                await self._grow(action, kept)
            case Delete(live):
                await self._delete(live, kept)
            case Foreign(manifest, live):
                kept.hurdles.append(Trouble(Reason.FOREIGN_OBJECT, _foreign(manifest, live)))
            case Wait():
                kept.requeue()
            case _:
                assert_never(action)

    async def _try(self, manifest: Object, kept: Kept, do: Callable[[Object, Kept], Awaitable[None]]) -> None:
        """Unless it was refused not long ago."""
        key, known = key_of(manifest), self._refused.get(key_of(manifest))
        if known is not None and known.manifest_hash == _hash(manifest) and self._clock() < known.until:
            kept.hurdles.append(known.trouble)
            return
        try:
            await do(manifest, kept)
        except ApiRefused as error:
            self._note_refusal(key, manifest, refusal(key, error.status, error.message), kept)
        else:
            self._refused.pop(key, None)

    def _note_refusal(self, key: Key, manifest: Object, trouble: Trouble | None, kept: Kept) -> None:
        if trouble is None:
            kept.requeue()
            return
        known = self._refused.get(key)
        first, longest = REFUSED_S
        again = known is not None and known.manifest_hash == _hash(manifest)
        wait_s = min(longest, known.wait_s * 2) if known is not None and again else first
        self._refused[key] = _Refused(_hash(manifest), trouble, wait_s, self._clock() + wait_s)
        kept.hurdles.append(trouble)

    async def _apply(self, manifest: Object, kept: Kept) -> None:
        live = await self._cluster.apply(manifest)
        key = key_of(manifest)
        self._settled[key], self._latest[key] = fingerprint(live, manifest), live
        if manifest["kind"] in self._unwatched:
            self._confirmed[key] = self._clock()
        kept.made.append(key)

    def _foreign_in(self, live: Object, manifest: Object) -> tuple[Trouble, ...]:
        """What others have put there. Looked at once in each state of the object."""
        key, state = key_of(live), fingerprint(live, manifest)
        known = self._foreign.get(key)
        if known is None or known[0] != state:
            found = (one for one in drift(live, manifest, ours=OURS) if not one.is_ours)
            said = (f"{key}: {one.field} was set by {one.manager}" for one in found)
            known = self._foreign[key] = (state, tuple(Trouble(Reason.DRIFT, text) for text in said))
        return known[1]

    def _undone(self, manifest: Object, live: Object | None) -> list[str]:
        """Which changes of others an apply of the manifest undoes, in words."""
        key = key_of(manifest)
        if live is None:
            return [f"{key} was deleted by somebody and is made again"] if key in self._settled else []
        taken_over = "replicas" not in self._set.get(key, {"replicas"})  # from mode External
        found = (one for one in drift(live, manifest, ours=OURS) if one.is_ours)
        return [
            f"{key}: {one.field} was changed by {one.manager} and is set by the operator again"
            for one in found
            if not (taken_over and one.field == "spec.replicas")
        ]

    async def _hand_over(self, manifest: Object, replicas: int, kept: Kept) -> None:
        async def both(wanted: Object, told: Kept) -> None:
            await self._cluster.apply(handover(wanted, replicas), manager=HANDOVER)
            await self._apply(wanted, told)

        await self._try(manifest, kept, both)

    async def _grow(self, grow: Grow, kept: Kept) -> None:
        async def all_of_it(_: Object, told: Kept) -> None:
            for claim in grow.claims:
                await self._grow_claim(claim, grow.size)
            await self._cluster.delete(grow.live, orphan=True)
            self._settled.pop(key_of(grow.live), None)  # it is we who deleted it
            told.requeue()

        before = len(kept.hurdles)
        await self._try(grow.manifest, kept, all_of_it)
        for hurdle in kept.hurdles[before:]:
            kept.storage = Trouble(Reason.STORAGE_NOT_EXPANDABLE, hurdle.said)
        del kept.hurdles[before:]
        if kept.storage:
            await self._keep_the_rest(grow, kept)

    async def _grow_claim(self, name: str, size: str) -> None:
        claim = await self.get(VOLUME_CLAIM, name)
        if claim is not None and not has_grown(claim, size):
            changes = {"spec": {"resources": {"requests": {"storage": size}}}}
            await self._cluster.patch(VOLUME_CLAIM, self._ref.namespace, name, changes)

    async def _keep_the_rest(self, grow: Grow, kept: Kept) -> None:
        """The StatefulSet as it should be, but for its storage."""
        key = key_of(grow.live)
        if self._settled.get(key) == fingerprint(grow.live, grow.fallback):
            return
        try:
            await self._apply(grow.fallback, kept)
        except ApiRefused as error:
            if trouble := refusal(key, error.status, error.message):
                kept.hurdles.append(trouble)

    async def _delete(self, live: Object, kept: Kept) -> None:
        try:
            await self._cluster.delete(live)
        except ApiRefused as error:
            if trouble := refusal(key_of(live), error.status, error.message):
                kept.hurdles.append(trouble)
            return
        kept.deleted.append(key_of(live))


def _rank(action: Action) -> int:
    """What may be done at the same time: objects of one kind; deletions come last."""
    if isinstance(action, Delete):
        return len(ORDER)
    live = action.live if isinstance(action, Skip | Wait) else action.manifest
    return ORDER[live["kind"]]


def _hash(manifest: Object) -> str:
    return str((manifest["metadata"].get("annotations") or {}).get(HASH_ANNOTATION))


def _foreign(manifest: Object, live: Object) -> str:
    owners = [f"{one['kind']} {one['name']}" for one in live["metadata"].get("ownerReferences") or ()]
    return f"{key_of(manifest)} is there already and belongs to {', '.join(owners) or 'somebody else'}"
