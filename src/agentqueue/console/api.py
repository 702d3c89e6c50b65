"""The REST API. Each endpoint reads its request, asks the client, and writes one answer."""

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote

import orjson
import structlog
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from agentqueue.client import Cancellation, Client, DeadGroup, QueueStats
from agentqueue.client.results import job_not_found
from agentqueue.client.status import status_of
from agentqueue.client.suggestions import check_job_known, check_queue_known
from agentqueue.clock import now_ms
from agentqueue.console.auth import is_authorized
from agentqueue.console.errors import REDIS_AWAY, Problem
from agentqueue.console.requests import flag, read_object, take, whole_number, words
from agentqueue.errors import AgentQueueError, InvalidPayload, UsageError
from agentqueue.keys import check_id, check_queue
from agentqueue.model.attempts import AttemptError, errors_of
from agentqueue.model.dead_letter import dead_letter_to_json, decode_dead_letter, error_to_json
from agentqueue.model.result import decode_result
from agentqueue.model.times import from_ms, iso
from agentqueue.store import Snapshot
from agentqueue.store.lookup import find_queue

log = structlog.get_logger("agentqueue.console")
"""Every change is a line: the guard has bound who asks, the endpoint says what and how much."""
NUMBER: Final = (int, float)
SERIES: Final = ("enqueued", "completed", "retried", "dead")
"""The counters of a queue's history."""
MOST_LOGGED_IDS: Final = 20
FORCE: Final = "Send it anyway with ?force=true."


class Json(Response):
    """JSON by orjson: payloads may hold text that the standard library can't write."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """The body."""
        try:
            return orjson.dumps(content)
        except orjson.JSONEncodeError:  # what others have stored may be nested deeper than orjson writes
            return _dumps_deep(content)


def _dumps_deep(content: Any) -> bytes:
    try:
        return json.dumps(content, ensure_ascii=True, separators=(",", ":")).encode()
    except RecursionError:
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "a stored value is nested too deep to be shown") from None


def client_of(request: Request) -> Client:
    """The client that the app was made with."""
    client: Client = request.app.state.client
    return client


def queue_of(request: Request) -> str:
    """The queue in the path.

    Raises:
        InvalidName: no queue can have that name.
    """
    return check_queue(request.path_params["queue"])


# Health


async def healthz(_request: Request) -> Response:
    """The process answers."""
    return PlainTextResponse("ok\n")


async def queue_health(request: Request) -> Response:
    """Whether the server answers and is one that keeps jobs. Without a token the answer names no addresses."""
    try:
        await client_of(request).server.check()
    except AgentQueueError as exc:
        request.app.state.lines.warn(REDIS_AWAY, error=str(exc))
        told = is_authorized(request.headers.get("authorization"), request.app.state.token)
        error = str(exc) if told else "Redis does not answer, or can't be used; the console's log tells why"
        return Json({"status": "unhealthy", "error": error}, HTTPStatus.SERVICE_UNAVAILABLE)
    return Json({"status": "healthy", "redis": "connected"})


# Queues


async def plain_stats(request: Request) -> Response:
    """Seven numbers a queue, in the words of other queues' consoles: `failed` are the dead letters."""
    return Json({"stats": [_plain(stats) for stats in await client_of(request).stats()]})


def _plain(stats: QueueStats) -> dict[str, Any]:
    problem = {} if stats.problem is None else {"problem": stats.problem}
    return problem | {
        "name": stats.name,
        "waiting": stats.waiting,
        "active": stats.active,
        "completed": stats.completed,
        "failed": stats.dead,
        "delayed": stats.delayed,
        "paused": stats.paused,
    }


async def list_queues(request: Request) -> Response:
    """All that is known of every queue."""
    return Json({"queues": [stats.to_json() for stats in await client_of(request).stats()]})


async def show_queue(request: Request) -> Response:
    """All that is known of a queue."""
    client, queue = client_of(request), queue_of(request)
    await check_queue_known(client, queue)
    return Json((await client.stats(queue)).to_json())


async def history(request: Request) -> Response:
    """The counters of each of the last minutes, oldest first; the last one is not over."""
    client, queue = client_of(request), queue_of(request)
    minutes = whole_number(request, "minutes", 60)
    if not 1 <= minutes <= 1_440:
        raise UsageError(f"?minutes={minutes} must be from 1 to 1440 (a day)")
    await check_queue_known(client, queue)
    found = await client.store.history(queue, until_ms=now_ms(), minutes=minutes)
    series = {name: [counters.get(name, 0) for _, counters in found] for name in SERIES}
    return Json({"since": iso(from_ms(found[0][0])), "minutes": minutes, **series})


async def pause(request: Request) -> Response:
    """Start no more jobs; running ones go on."""
    client, queue = client_of(request), queue_of(request)
    note = take(await read_object(request), note=str).get("note")
    await check_queue_known(client, queue)
    changed = await client.pause(queue, (note or "")[:200] or None)
    log.info("queue_paused", queue=queue, changed=changed, note=note)
    return Json({"paused": True, "changed": changed})


async def resume(request: Request) -> Response:
    """Start jobs again."""
    client, queue = client_of(request), queue_of(request)
    take(await read_object(request))
    await check_queue_known(client, queue)
    changed = await client.resume(queue)
    log.info("queue_resumed", queue=queue, changed=changed)
    return Json({"paused": False, "changed": changed})


# Jobs


async def enqueue(request: Request) -> Response:
    """Enqueue a job: 202, with its address in Location. A known id is answered with the first job and its state."""
    client, queue = client_of(request), queue_of(request)
    job = _job_in(await read_object(request))
    if not flag(request, "force"):
        await check_queue_known(client, queue, way_out=FORCE)
        await check_job_known(client, queue, job["name"], way_out=FORCE)
    sent = await client.enqueue(queue=queue, force=True, **job)
    log.debug("job_enqueued", queue=queue, job=job["name"], id=sent.id, deduplicated=sent.deduplicated)
    answer = {"id": sent.id, "queue": sent.queue or queue, "name": job["name"], "deduplicated": sent.deduplicated}
    if (known := await sent.known_status()) is not None:
        answer |= {"queue": known.queue, "name": known.name, "state": known.state}
    return Json(answer, HTTPStatus.ACCEPTED, {"Location": f"/api/jobs/{quote(sent.id, safe='')}"})


def _job_in(body: Mapping[str, Any]) -> dict[str, Any]:
    job = take(
        body,
        name=str,
        data=object,
        priority=(str, int),
        delay=NUMBER,
        id=str,
        tags=list,
        timeout=NUMBER,
        attempts=int,
        backoff=(dict, *NUMBER),
        tenant=str,
        trace=str,
    )
    if "data" in body:  # null is a payload
        job["data"] = body["data"]
    if "name" not in job:
        raise UsageError('the body must name the job, as its handler has it: {"name": "search-flights", "data": …}')
    return job


async def list_jobs(request: Request) -> Response:
    """A page of a queue's jobs: `?state=waiting|delayed|active|completed|dead&cursor=&limit=&fields=data,result`."""
    client, queue = client_of(request), queue_of(request)
    await check_queue_known(client, queue)
    page = await client.jobs(
        queue,
        request.query_params.get("state") or None,
        request.query_params.get("cursor"),
        limit=whole_number(request, "limit", 50),
        fields=words(request, "fields"),
    )
    return Json({"jobs": [job.to_json() for job in page], "cursor": page.cursor})


async def show_job(request: Request) -> Response:
    """A job, with the errors of its attempts."""
    snapshot = await _inspect(client_of(request), check_id(request.path_params["id"]))
    status = status_of(snapshot)
    if status is None:
        raise job_not_found(snapshot.id)
    return Json(status.to_json() | {"errors": [error_to_json(error) for error in _errors(snapshot)]})


async def _inspect(client: Client, job_id: str) -> Snapshot:
    queue = await find_queue(client.store, job_id)
    if queue is None:
        raise job_not_found(job_id)
    return await client.store.inspect(queue, job_id)


def _errors(snapshot: Snapshot) -> Sequence[AttemptError]:
    """Every attempt's error, oldest first. What can't be read (a pickled result) has told so in the status."""
    if snapshot.score is not None:
        return errors_of(snapshot.meta)
    try:
        if snapshot.dead:
            return decode_dead_letter(snapshot.dead["dead_letter"]).errors
        return decode_result(snapshot.result, job_id=snapshot.id).errors if snapshot.result else ()
    except InvalidPayload:
        return ()


async def cancel(request: Request) -> Response:
    """Cancel a job: 200 it is cancelled, 202 its worker will do so within a second, 409 it had ended."""
    job_id = check_id(request.path_params["id"])
    done = await client_of(request).cancel(job_id)
    log.info("job_cancelled", id=job_id, cancellation=str(done))
    if done is Cancellation.TOO_LATE:
        raise Problem(HTTPStatus.CONFLICT, f"job {job_id} had ended before; there is nothing to cancel")
    status = HTTPStatus.OK if done is Cancellation.CANCELLED else HTTPStatus.ACCEPTED
    return Json({"id": job_id, "cancellation": done}, status)


# Dead letters


async def list_dead(request: Request) -> Response:
    """A page of dead letters, newest first: `?like=FINGERPRINT&cursor=&limit=&fields=data`."""
    client, queue = client_of(request), queue_of(request)
    await check_queue_known(client, queue)
    page = await client.dead_letters(
        queue,
        fingerprint=request.query_params.get("like"),
        cursor=request.query_params.get("cursor"),
        limit=whole_number(request, "limit", 50),
        fields=words(request, "fields"),
    )
    return Json({"dead": [dead_letter_to_json(letter) for letter in page], "cursor": page.cursor})


async def dead_groups(request: Request) -> Response:
    """The dead letters by kind, the most frequent first."""
    client, queue = client_of(request), queue_of(request)
    await check_queue_known(client, queue)
    groups = await client.dead_groups(queue)
    return Json({"groups": [_group(group) for group in groups]})


def _group(group: DeadGroup) -> dict[str, Any]:
    return {"fingerprint": group.fingerprint, "count": group.count, "newest": dead_letter_to_json(group.newest)}


async def replay(request: Request) -> Response:
    """Send dead letters again: `{"ids": […]}`, `{"like": "fingerprint"}` or `{"all": true}`."""
    client, queue = client_of(request), queue_of(request)
    which = _which(await read_object(request))
    await check_queue_known(client, queue)
    done = await client.replay(queue, **which)
    log.info("dead_letters_replayed", queue=queue, count=done.count, left=done.left, **_said(which))
    return Json(
        {"replayed": done.count, "unknown": done.not_found, "live": done.already_queued, "bare": done.no_record}
    )


async def discard(request: Request) -> Response:
    """Forget dead letters, chosen as for replay."""
    client, queue = client_of(request), queue_of(request)
    which = _which(await read_object(request))
    await check_queue_known(client, queue)
    count = await client.discard(queue, **which)
    log.info("dead_letters_discarded", queue=queue, count=count, **_said(which))
    return Json({"discarded": count})


def _which(body: Mapping[str, Any]) -> dict[str, Any]:
    which = take(body, ids=list, like=str, all=bool)
    if which.get("all") is False:
        del which["all"]
    if len(which) != 1:
        raise UsageError('name the dead letters by exactly one of {"ids": […]}, {"like": "fingerprint"}, {"all": true}')
    return {"fingerprint" if name == "like" else name: value for name, value in which.items()}


def _said(which: Mapping[str, Any]) -> dict[str, Any]:
    """Return how the dead letters were chosen, as the log has it: of many ids the first ones."""
    return {**which, "ids": which["ids"][:MOST_LOGGED_IDS]} if "ids" in which else {**which}


def routes() -> list[Route]:
    """The API's paths."""
    one = "/api/queues/{queue}"
    return [
        Route("/healthz", healthz),
        Route("/api/health/queue", queue_health),
        Route("/api/queue/stats", plain_stats),
        Route("/api/queues", list_queues),
        Route(one, show_queue),
        Route(f"{one}/history", history),
        Route(f"{one}/pause", pause, methods=["POST"]),
        Route(f"{one}/resume", resume, methods=["POST"]),
        Route(f"{one}/jobs", list_jobs),
        Route(f"{one}/jobs", enqueue, methods=["POST"]),
        Route(f"{one}/dead", list_dead),
        Route(f"{one}/dead/groups", dead_groups),
        Route(f"{one}/dead/replay", replay, methods=["POST"]),
        Route(f"{one}/dead/discard", discard, methods=["POST"]),
        Route("/api/jobs/{id:path}", show_job),
        Route("/api/jobs/{id:path}", cancel, methods=["DELETE"]),
    ]
