"""Requests to the API server: authentication, deadlines and errors."""

import asyncio
import os
from collections.abc import Callable, Mapping
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
"""Default deadline of a request, in seconds."""
CONNECTIONS: Final = 32
"""Maximum number of concurrent requests. Further requests wait, within their deadline."""
NOT_IN_SCHEMA: Final = "field not declared in schema"
"""Text of the 500 response to an apply with an unknown field, such as a typo in a podTemplate. The server is well."""
RETRYABLE: Final = frozenset({408, 429})
"""HTTP status codes below 500 after which a retry may succeed."""
TOKEN_FILE: Final = "/var/run/secrets/kubernetes.io/serviceaccount/token"  # noqa: S105  # a path
"""File in a pod that holds the ServiceAccount's token."""
OnCall = Callable[[str, str, int], None]
"""Receives HTTP method, plural of the kind and status code (0: no response) of each request."""


async def find_access() -> Configuration:
    """Return the credentials from KUBECONFIG, else from a pod's ServiceAccount, else from ~/.kube/config.

    Raises:
        ApiUnavailable: none of them exists, or it cannot be read.
    """
    # Trust the environment only if it names a proxy: aiohttp would look for a netrc file in each request.
    trust = {"trust_env": bool(getproxies_environment())}
    found = Configuration(connection_pool_maxsize=CONNECTIONS, client_session_kwargs=trust)
    try:
        if not os.environ.get("KUBECONFIG") and os.path.exists(TOKEN_FILE):  # noqa: ASYNC240, PTH110  # a local file
            config.load_incluster_config(client_configuration=found)
        else:
            await config.load_kube_config(client_configuration=found)
    except (config.ConfigException, OSError, ValueError) as exc:
        raise ApiUnavailable(f"cannot log in to Kubernetes: {exc}; set KUBECONFIG, or run in a pod") from exc
    return found


class ApiServer:
    """A pool of connections to the API server, for the event loop in which it is first used.

    Args:
        access: returns the credentials; called again when the server rejects them.
        agent: the user agent.
        on_call: receives each request, for the metrics.
    """

    def __init__(
        self,
        access: Callable[[], Any] = find_access,
        *,
        agent: str = "agentqueue-operator",
        on_call: OnCall | None = None,
    ) -> None:
        self._access = access
        self._agent = agent
        self._on_call = on_call
        self._client: ApiClient | None = None
        self._logging_in = asyncio.Lock()
        self._answered_at = monotonic()

    @property
    def silent_s(self) -> float:
        """Return the seconds since the server last responded."""
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
        """Send a request and return the JSON of the response.

        Args:
            method: the HTTP method.
            path: the path, from `paths`.
            query: the query parameters.
            body: the JSON of the request.
            content_type: the type of the body.
            accept: the requested type of the response.
            deadline_s: time limit for the request and a retry with new credentials, in seconds.

        Raises:
            ApiRefused: the server rejected the request.
            ApiUnavailable: it did not respond in time, or asked to retry later.
        """
        headers = {"Content-Type": content_type, "Accept": accept}
        url = path + (f"?{urlencode(query)}" if query else "")
        status = 0
        try:
            async with asyncio.timeout(deadline_s):
                status, raw, retry_after = await self._send(method, url, headers, body)
                if status == 401:
                    await self._log_in(again=True)
                    status, raw, retry_after = await self._send(method, url, headers, body)
        except TimeoutError as exc:
            raise ApiUnavailable(f"{method} {path}: no response within {deadline_s:.1f} s") from exc
        except (ClientError, OSError) as exc:
            raise ApiUnavailable(f"{method} {path}: {str(exc) or type(exc).__name__}") from exc
        finally:
            if status:
                self._answered_at = monotonic()
            if self._on_call is not None:
                self._on_call(method, plural_in(path), status)
        if status >= 400:
            raise api_error(status, raw, retry_after=retry_after)
        return _json(raw)

    async def _send(self, method: str, url: str, headers: Mapping[str, str], body: object) -> tuple[int, bytes, str]:
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


def plural_in(path: str) -> str:
    """Return the plural of the kind in a path, for metrics: a bounded set, never the name of an object."""
    parts = path.strip("/").split("/")
    rest = parts[2:] if parts[0] == "api" else parts[3:]
    if rest and rest[0] == "namespaces" and len(rest) > 2:
        rest = rest[2:]
    return rest[0] if rest else "other"


def api_error(status: int, raw: bytes, *, retry_after: str = "") -> ApiRefused | ApiUnavailable:
    """Return the exception for an error response.

    Args:
        status: the HTTP status code.
        raw: the body.
        retry_after: the header Retry-After.
    """
    body = _json(raw)
    is_status = isinstance(body, dict) and body.get("kind") == "Status"
    reason = str(body.get("reason") or "") if is_status else ""
    message = str(body.get("message") or "") if is_status else raw[:500].decode(errors="replace").strip()
    if NOT_IN_SCHEMA in message:
        return ApiRefused(422, "Invalid", message)
    if status in RETRYABLE or status >= 500:
        retry_after_s = float(retry_after) if retry_after.isdecimal() else None
        return ApiUnavailable(f"{status} {reason}: {message}", retry_after_s=retry_after_s)
    return ApiRefused(status, reason or _REASONS.get(status, "Unknown"), message)


_REASONS: Final = {400: "BadRequest", 401: "Unauthorized", 403: "Forbidden", 404: "NoSuchKind", 409: "Conflict"}
"""Reasons for responses without one. A 404 without a reason is about a kind that the server does not have."""


def _json(raw: bytes) -> Any:
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
