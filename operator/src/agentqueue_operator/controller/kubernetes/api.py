"""Calls to the API server: logging in, deadlines, and what its refusals mean."""

import asyncio
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode
from urllib.request import getproxies_environment

import orjson
from aiohttp import ClientError, ClientTimeout
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration

from agentqueue.clock import monotonic
from agentqueue_operator.controller.ports import ApiRefused, ApiUnavailable

DEADLINE_S: Final = 10.0
"""For a call that names none."""
CONNECTIONS: Final = 32
"""Calls at the same time; more wait for their turn, within their deadline."""
NOT_IN_SCHEMA: Final = "field not declared in schema"
"""An unknown field in an apply (a typo in a podTemplate) is answered with 500; it is no fault of the server's."""
LATER: Final = frozenset({408, 429})
"""With all from 500 on: asking again may help."""
TOKEN_FILE: Final = "/var/run/secrets/kubernetes.io/serviceaccount/token"  # noqa: S105  # a path
Noted = Callable[[str, str, int], None]
"""Gets verb, plural and status (0: no answer) of each call."""


async def find_access() -> Configuration:
    """As KUBECONFIG says; else as a pod's ServiceAccount; else by the usual file in the home folder.

    Raises:
        ApiUnavailable: none of them is there, or it can't be read.
    """
    # Without a proxy there is no use in trusting the environment: aiohttp would look for a netrc file in each call.
    trust = {"trust_env": bool(getproxies_environment())}
    found = Configuration(connection_pool_maxsize=CONNECTIONS, client_session_kwargs=trust)
    try:
        if _in_a_pod():
            config.load_incluster_config(client_configuration=found)
        else:
            await config.load_kube_config(client_configuration=found)
    except (config.ConfigException, OSError, ValueError) as exc:
        raise ApiUnavailable(f"no way to log in to Kubernetes: {exc}; set KUBECONFIG, or run in a pod") from exc
    return found


def _in_a_pod() -> bool:
    return not os.environ.get("KUBECONFIG") and Path(TOKEN_FILE).exists()


class ApiServer:
    """A pool of connections, for the event loop that it is first used in.

    Args:
        access: logs in; called again when the server does not know us any more.
        noted: is told of each call.
    """

    def __init__(
        self, access: Callable[[], Any] = find_access, *, agent: str = "agentqueue-operator", noted: Noted | None = None
    ) -> None:
        self._access = access
        self._agent = agent
        self._noted = noted
        self._client: ApiClient | None = None
        self._logging_in = asyncio.Lock()
        self._answered_at = monotonic()

    @property
    def silent_s(self) -> float:
        """Since the server last answered."""
        return monotonic() - self._answered_at

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: object = None,
        content_type: str = "application/json",
        accept: str = "application/json",
        deadline_s: float = DEADLINE_S,
    ) -> Any:
        """The answer's JSON.

        Raises:
            ApiRefused, ApiUnavailable: as the port says.
        """
        headers = {"Content-Type": content_type, "Accept": accept}
        url = path + (f"?{urlencode(query)}" if query else "")
        status = 0
        try:
            async with asyncio.timeout(deadline_s):
                status, raw, retry_after = await self._ask(method, url, headers, body)
                if status == 401:
                    await self._log_in(again=True)
                    status, raw, retry_after = await self._ask(method, url, headers, body)
        except TimeoutError as exc:
            raise ApiUnavailable(f"{method} {path}: no answer within {deadline_s:.1f} s") from exc
        except (ClientError, OSError) as exc:
            raise ApiUnavailable(f"{method} {path}: {str(exc) or type(exc).__name__}") from exc
        finally:
            self._note(method, path, status)
        if status >= 400:
            raise refusal(status, raw, retry_after=retry_after)
        return _json(raw)

    async def _ask(self, method: str, url: str, headers: Mapping[str, str], body: object) -> tuple[int, bytes, str]:
        client = self._client or await self._log_in()
        sent = {**headers, "User-Agent": self._agent}
        await client.update_params_for_auth(sent, [], ["BearerToken"], url, method, body)
        answer = await client.rest_client.request(
            method, client.configuration.host + url, sent, body, _request_timeout=ClientTimeout(total=None)
        )
        raw: bytes = await answer.read()
        return answer.status, raw, answer.headers.get("Retry-After", "")

    async def _log_in(self, *, again: bool = False) -> ApiClient:
        before = self._client
        async with self._logging_in:
            if self._client is None or (again and self._client is before):
                self._client = ApiClient(await self._access())
                if before is not None:
                    await before.close()
            return self._client

    def _note(self, method: str, path: str, status: int) -> None:
        if status:
            self._answered_at = monotonic()
        if self._noted is not None:
            self._noted(method, plural_in(path), status)


def plural_in(path: str) -> str:
    """What a path is about, for metrics: bounded, never an object's name."""
    parts = path.strip("/").split("/")
    rest = parts[2:] if parts[0] == "api" else parts[3:]
    if rest and rest[0] == "namespaces" and len(rest) > 2:
        rest = rest[2:]
    return rest[0] if rest else "other"


def refusal(status: int, raw: bytes, *, retry_after: str = "") -> ApiRefused | ApiUnavailable:
    """What an error's answer means."""
    told = _json(raw)
    is_status = isinstance(told, dict) and told.get("kind") == "Status"
    reason = str(told.get("reason") or "") if is_status else ""
    message = str(told.get("message") or "") if is_status else raw[:500].decode(errors="replace").strip()
    if NOT_IN_SCHEMA in message:
        return ApiRefused(422, "Invalid", message)
    if status in LATER or status >= 500:
        return ApiUnavailable(f"{status} {reason}: {message}", retry_after_s=_seconds(retry_after))
    return ApiRefused(status, reason or _REASONS.get(status, "Unknown"), message)


_REASONS: Final = {400: "BadRequest", 401: "Unauthorized", 403: "Forbidden", 404: "NoSuchKind", 409: "Conflict"}
"""Where the server gives none: 404 without a reason is about a kind that it does not serve."""


def _seconds(retry_after: str) -> float | None:
    return float(retry_after) if retry_after.isdecimal() else None


def _json(raw: bytes) -> Any:
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
