"""A proxy before the API server that counts requests and answers in its place as a test asks.

It speaks plain HTTP, on this machine's own end of the cluster's link, so that pods reach it as well. Who shows no
token, as Go's clients over plain HTTP, is an administrator.
"""

import asyncio
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from aiohttp import ClientSession, ClientTimeout, StreamReader, TCPConnector, web
from yarl import URL

from tests.support.cluster.access import Access

REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    409: "Conflict",
    410: "Expired",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}
VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch"}
HOP_BY_HOP = {"connection", "content-length", "host", "keep-alive", "transfer-encoding", "content-encoding"}


@dataclass(frozen=True)
class Request:
    """A request that came through: Kubernetes' verb, the path without its query, who asked and the answer's status."""

    verb: str
    path: str
    agent: str
    status: int


@dataclass
class Fault:
    """What to answer to requests of a verb (any if empty) whose path the pattern is found in, so many times."""

    status: int
    verb: str = ""
    path: str = ""
    times: int | None = None
    retry_after: int | None = None
    hang: bool = False

    def meets(self, verb: str, path: str) -> bool:
        """Whether the fault is for this request, and not used up."""
        return self.times != 0 and self.verb in ("", verb) and re.search(self.path, path) is not None


@dataclass
class ApiProxy:
    """Started by `async with`; the kubeconfig is for whom the faults are meant."""

    access: Access
    kubeconfig: Path
    host: str
    requests: list[Request] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    _watches: list["_Watch"] = field(default_factory=list)
    url: str = ""

    def fail(
        self, status: int, *, verb: str = "", path: str = "", times: int | None = None, retry_after: int | None = None
    ) -> Fault:
        """Answer with an error: for `times` requests, or until `heal`. `path` is a regular expression."""
        return self._add(Fault(status, verb, path, times, retry_after))

    def hang(self, *, verb: str = "", path: str = "", times: int | None = None) -> Fault:
        """Take requests and never answer them, like a server behind a broken network."""
        return self._add(Fault(0, verb, path, times, hang=True))

    def heal(self) -> None:
        """Let everything through again."""
        self.faults.clear()

    @property
    def open_watches(self) -> int:
        """How many watches are under way."""
        return len(self._watches)

    def cut_watches(self) -> int:
        """Break all open watches off in mid-air; how many there were."""
        return self._end_watches(b"")

    def expire_watches(self) -> int:
        """End all open watches as the server does when their place in history is gone: an ERROR event with code 410."""
        event = {"type": "ERROR", "object": _status(410, "too old resource version")}
        return self._end_watches(json.dumps(event).encode() + b"\n")

    def count(self, *, verb: str = "", path: str = "", agent: str = "") -> int:
        """How many requests of a verb (any if empty) had a path and an asker that the patterns are found in."""
        return sum(
            request.verb == (verb or request.verb)
            and re.search(path, request.path) is not None
            and re.search(agent, request.agent) is not None
            for request in self.requests
        )

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=16 * 2**20)
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0)
        self._session = ClientSession(
            connector=TCPConnector(ssl=self.access.tls(), limit=0),
            timeout=ClientTimeout(total=None),
            auto_decompress=False,
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, self.host, 0)
        await site.start()
        self.url = f"http://{self.host}:{self._runner.addresses[0][1]}"
        self.kubeconfig.write_text(json.dumps(_kubeconfig(self.url, self.access.token)))
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.cut_watches()
        await self._runner.cleanup()
        await self._session.close()

    def _add(self, fault: Fault) -> Fault:
        self.faults.append(fault)
        return fault

    def _end_watches(self, ending: bytes) -> int:
        watches, self._watches = self._watches, []
        for watch in watches:
            watch.ending = ending
            watch.pump.cancel()
        return len(watches)

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        verb = verb_of(request.method, request.path, watch=request.query.get("watch", "") in ("1", "true"))
        fault = next((fault for fault in self.faults if fault.meets(verb, request.path)), None)
        if fault is None:
            return await self._forward(request, verb)
        if fault.times is not None:
            fault.times -= 1
        self._note(request, verb, fault.status)
        if fault.hang:
            await asyncio.Event().wait()
        return _error(fault)

    async def _forward(self, request: web.Request, verb: str) -> web.StreamResponse:
        headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP}
        if "Authorization" not in request.headers:
            headers |= self.access.headers()
        target = URL(f"{self.access.server}{request.raw_path}", encoded=True)
        async with self._session.request(
            request.method, target, headers=headers, data=await request.read() or None
        ) as upstream:
            self._note(request, verb, upstream.status)
            kept = {name: value for name, value in upstream.headers.items() if name.lower() not in HOP_BY_HOP}
            if encoding := upstream.headers.get("Content-Encoding"):
                kept["Content-Encoding"] = encoding
            response = web.StreamResponse(status=upstream.status, headers=kept)
            await response.prepare(request)
            watch = _Watch(asyncio.create_task(_pump(upstream.content, response)))
            if verb == "watch":
                self._watches.append(watch)
            await self._finish(request, response, watch)
        return response

    async def _finish(self, request: web.Request, response: web.StreamResponse, watch: "_Watch") -> None:
        try:
            await watch.pump
        except asyncio.CancelledError:
            if watch.ending is None:  # the client hung up
                raise
            if not watch.ending and request.transport:
                request.transport.abort()
                return
            await response.write(watch.ending)
        finally:
            if watch in self._watches:
                self._watches.remove(watch)
        await response.write_eof()

    def _note(self, request: web.Request, verb: str, status: int) -> None:
        self.requests.append(Request(verb, request.path, request.headers.get("User-Agent", ""), status))


@dataclass(eq=False)
class _Watch:
    """An answer under way, and what to end it with when it is cut off on purpose."""

    pump: asyncio.Task[None]
    ending: bytes | None = None


def verb_of(method: str, path: str, *, watch: bool) -> str:
    """Kubernetes' verb: get, list, watch, create, update, patch, delete or deletecollection."""
    if watch:
        return "watch"
    one = _names_one(path)
    if method == "GET":
        return "get" if one else "list"
    if method == "DELETE":
        return "delete" if one else "deletecollection"
    return VERBS.get(method, method.lower())


def _names_one(path: str) -> bool:
    """Whether a path is one object's (or no resource's at all), rather than a collection's."""
    parts = path.strip("/").split("/")
    rest = parts[2:] if parts[0] == "api" else parts[3:] if parts[0] == "apis" else []
    if rest[:1] == ["namespaces"] and len(rest) > 2:
        rest = rest[2:]
    return len(rest) != 1


async def _pump(upstream: StreamReader, response: web.StreamResponse) -> None:
    async for chunk in upstream.iter_any():
        await response.write(chunk)


def _error(fault: Fault) -> web.Response:
    headers = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
    return web.json_response(_status(fault.status, "a test wants it so"), status=fault.status, headers=headers)


def _status(code: int, message: str) -> dict[str, object]:
    reason = REASONS.get(code, "")
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"} | {
        "code": code,
        "reason": reason,
        "message": message,
    }


def _kubeconfig(url: str, token: str | None) -> dict[str, object]:
    """Without a token the administrator's speaks for whoever asks, or the administrator's certificate."""
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "proxy",
        "clusters": [{"name": "proxy", "cluster": {"server": url}}],
        "users": [{"name": "proxy", "user": {"token": token} if token else {}}],
        "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "proxy"}}],
    }
