"""The Secrets and ConfigMaps of an AgentQueue's users, read by `get` and kept for a minute (OPERATOR 14)."""

import asyncio
import base64
import binascii
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from agentqueue_operator.controller.ports import ApiRefused, ApiUnavailable, Cluster
from agentqueue_operator.resources.kinds import SECRET, Kind, Object
from agentqueue_operator.resources.render import Reference

FRESH_S: Final = 60.0
"""How long what was read counts as true, where the API server can be asked."""
MISSING_S: Final = 5.0
"""How long what was not there, or may not be read, is not asked for again: people wait for it."""


@dataclass(frozen=True, slots=True)
class Missing:
    """What could not be read of a Secret, and why."""

    said: str
    forbidden: bool = False
    """Nobody knows whether it is there."""


@dataclass(frozen=True, slots=True)
class _Read:
    """An object's content at an instant."""

    at: float
    found: Object | None
    forbidden: bool = False


class Contents:
    """Of one namespace, for one AgentQueue."""

    def __init__(
        self, cluster: Cluster, namespace: str, *, clock: Callable[[], float], fresh_s: float = FRESH_S
    ) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._clock = clock
        self._fresh_s = fresh_s
        self._read: dict[Reference, _Read] = {}

    async def text(self, secret: str, key: str) -> str | Missing:
        """A key of a Secret."""
        read = await self._get(Reference(SECRET, secret))
        if read.forbidden:
            return Missing(f"the operator may not read the Secret {secret}", forbidden=True)
        if read.found is None:
            return Missing(f"there is no Secret {secret}")
        return _decoded(secret, key, read.found)

    def forget(self, kind: Kind, name: str) -> None:
        """Read it anew the next time."""
        self._read.pop(Reference(kind, name), None)

    async def hash(self, references: Iterable[Reference]) -> tuple[str | None, frozenset[Reference]]:
        """Names the content of all of them, and those that are not there. None: some may not be read."""
        given = sorted(references, key=lambda one: (one.kind.kind, one.name))
        reads = await asyncio.gather(*map(self._get, given))
        missing = frozenset(
            one for one, read in zip(given, reads, strict=True) if not read.found and not read.forbidden
        )
        if not given or any(read.forbidden for read in reads):
            return None, missing
        content = [[one.kind.kind, one.name, _content(read.found)] for one, read in zip(given, reads, strict=True)]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16], missing

    async def _get(self, reference: Reference) -> _Read:
        """Return what was read; while the API server is unavailable, what it held before. What was not there may be
        there by now, so that nothing is said of it."""
        known = self._read.get(reference)
        if known is not None and self._clock() - known.at <= self._good_for(known):
            return known
        try:
            known = self._read[reference] = await self._ask(reference)
        except ApiUnavailable:
            if known is None or known.found is None:
                raise
        return known

    def _good_for(self, read: _Read) -> float:
        return self._fresh_s if read.found else min(MISSING_S, self._fresh_s)

    async def _ask(self, reference: Reference) -> _Read:
        try:
            found = await self._cluster.get(reference.kind, self._namespace, reference.name)
        except ApiRefused as error:
            if error.status == 403:
                return _Read(self._clock(), None, forbidden=True)
            raise
        return _Read(self._clock(), found)


def _content(found: Object | None) -> Mapping[str, object] | None:
    if found is None:
        return None
    return {"data": found.get("data") or {}, "binaryData": found.get("binaryData") or {}}


def _decoded(secret: str, key: str, found: Object) -> str | Missing:
    encoded = (found.get("data") or {}).get(key)
    if encoded is None:
        return Missing(f"the Secret {secret} has no key {key}")
    try:
        text = base64.b64decode(encoded, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return Missing(f"key {key} of the Secret {secret} is not text")
    return text.strip() or Missing(f"key {key} of the Secret {secret} is empty")
