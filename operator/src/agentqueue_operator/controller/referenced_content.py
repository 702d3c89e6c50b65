"""Reads the Secrets and ConfigMaps that an AgentQueue refers to, and keeps them for a minute."""

import asyncio
import base64
import binascii
import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from agentqueue_operator.controller.ports import ApiRefused, ApiUnavailable, Cluster
from agentqueue_operator.resources.kinds import SECRET, Object
from agentqueue_operator.resources.render import Reference

TRUST_S: Final = 60.0
"""Seconds for which a read object is used before it is read again: one request per object and minute."""
RETRY_MISSING_S: Final = 5.0
"""Seconds for which a missing or forbidden object is not read again. Short, because users wait for it."""


class MissingReference(Exception):
    """A key of a Secret cannot be read.

    Args:
        reason: why not, for users.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ForbiddenReference(MissingReference):
    """The operator may not read a Secret, so it is unknown whether it exists."""


@dataclass(frozen=True, slots=True)
class _Read:
    """An object as it was read."""

    at: float
    """Monotonic seconds."""
    found: Object | None
    is_forbidden: bool = False


class SecretReader:
    """Reads Secrets and ConfigMaps for one AgentQueue.

    Args:
        cluster: the API server.
        namespace: the namespace of the AgentQueue.
        clock: returns monotonic seconds.
        trust_s: how long a read object is used before it is read again, in seconds.
    """

    def __init__(
        self, cluster: Cluster, namespace: str, *, clock: Callable[[], float], trust_s: float = TRUST_S
    ) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._clock = clock
        self._trust_s = trust_s
        self._reads: dict[Reference, _Read] = {}

    async def read(self, secret: str, key: str) -> str:
        """Return the text of a key of a Secret, without surrounding white space.

        Raises:
            MissingReference: there is no such Secret or key, or it holds no text.
            ForbiddenReference: the operator may not read the Secret.
            ApiRefused, ApiUnavailable: the API server failed.
        """
        read = await self._get(Reference(SECRET, secret))
        if read.is_forbidden:
            raise ForbiddenReference(f"the operator may not read the Secret {secret}")
        if read.found is None:
            raise MissingReference(f"there is no Secret {secret}")
        encoded = (read.found.get("data") or {}).get(key)
        if encoded is None:
            raise MissingReference(f"the Secret {secret} has no key {key}")
        try:
            text = base64.b64decode(encoded, validate=True).decode().strip()
        except (binascii.Error, UnicodeDecodeError) as error:
            raise MissingReference(f"key {key} of the Secret {secret} is not text") from error
        if not text:
            raise MissingReference(f"key {key} of the Secret {secret} is empty")
        return text

    async def hash(self, references: Iterable[Reference]) -> tuple[str | None, frozenset[Reference]]:
        """Return a hash over the content of all references, and the references that do not exist.

        The hash is None if there are no references, or if the operator may not read some of them.

        Raises:
            ApiRefused, ApiUnavailable: the API server failed.
        """
        ordered = sorted(references, key=lambda one: (one.kind.kind, one.name))
        reads = dict(zip(ordered, await asyncio.gather(*map(self._get, ordered)), strict=True))
        missing = frozenset(one for one, read in reads.items() if not read.found and not read.is_forbidden)
        if not reads or any(read.is_forbidden for read in reads.values()):
            return None, missing
        content = [
            [
                one.kind.kind,
                one.name,
                None
                if read.found is None
                else {"data": read.found.get("data") or {}, "binaryData": read.found.get("binaryData") or {}},
            ]
            for one, read in reads.items()
        ]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16], missing

    async def _get(self, reference: Reference) -> _Read:
        """Return the object. While the API server is unavailable, return the previous content.

        An object that was missing may exist now, so then the error is raised.
        """
        known = self._reads.get(reference)
        if known is not None:
            trust_s = self._trust_s if known.found else min(RETRY_MISSING_S, self._trust_s)
            if self._clock() - known.at <= trust_s:
                return known
        try:
            found = await self._cluster.get(reference.kind, self._namespace, reference.name)
            read = _Read(self._clock(), found)
        except ApiUnavailable:
            if known is None or known.found is None:
                raise
            return known
        except ApiRefused as error:
            if error.status != 403:
                raise
            read = _Read(self._clock(), None, is_forbidden=True)
        self._reads[reference] = read
        return read
