"""The REST API. Each endpoint reads its request, calls the client, and returns one response."""

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

from agentqueue.client import OMITTED, Cancellation, Client, QueueStats
from agentqueue.client.results import job_not_found
from agentqueue.client.status import status_of
from agentqueue.client.suggestions import check_job_known, check_queue_known
from agentqueue.clock import now_ms
from agentqueue.console.auth import is_authorized
from agentqueue.console.errors import REDIS_UNAVAILABLE, HttpProblem
from agentqueue.console.requests import boolean, integer, parse_fields, read_object, word_list
from agentqueue.errors import AgentQueueError, InvalidPayload, UsageError
from agentqueue.integrations.starlette import event_stream
from agentqueue.keys import check_id, check_queue
from agentqueue.model.attempts import AttemptError, errors_of
from agentqueue.model.dead_letter import dead_letter_to_json, decode_dead_letter, error_to_json
from agentqueue.model.result import decode_result
from agentqueue.model.times import from_ms, iso
from agentqueue.store import Snapshot
from agentqueue.store.lookup import find_queue

log = structlog.get_logger("agentqueue.console")
"""Every change writes a line. `AccessMiddleware` has added the caller; the endpoint adds the change and its size."""
NUMBER: Final = (int, float)
"""Python types of a JSON number."""
SERIES: Final = ("enqueued", "completed", "retried", "dead")
"""Counters in the history of a queue."""
MAX_LOGGED_IDS: Final = 20
"""Maximum number of job IDs in a log line. A request can name thousands."""
FORCE_HINT: Final = "Send it anyway with ?force=true."
"""The next step in errors about unknown names."""


class Json(Response):
    """A response with JSON from orjson. Payloads can contain text that the standard library cannot write."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Return the body.

        Raises:
            HttpProblem: The content is nested too deep (422).
        """
        try:
            return orjson.dumps(content)
        except orjson.JSONEncodeError:
            pass  # Values from other programs can be nested deeper than orjson allows.
        try:
            return json.dumps(content, ensure_ascii=True, separators=(",", ":")).encode()
        except RecursionError:
            raise HttpProblem(
                HTTPStatus.UNPROCESSABLE_ENTITY, "a stored value is nested too deep to be shown"
            ) from None


def client_of(request: Request) -> Client:
    """Return the client of the application."""
    client: Client = request.app.state.client
    return client


def queue_of(request: Request) -> str:
    """Return the queue in the path.

    Raises:
        InvalidName: The name is not a valid queue name.
    """
    return check_queue(request.path_params["queue"])


# Health


async def healthz(_request: Request) -> Response:
    """Respond that the process is alive."""
    return PlainTextResponse("ok\n")


async def queue_health(request: Request) -> Response:
    """Check that Redis responds and is configured to keep jobs. Without a token the response contains no addresses."""
    try:
        await client_of(request).server.check()
    except AgentQueueError as exc:
        request.app.state.repeated_logs.warn(REDIS_UNAVAILABLE, error=str(exc))
        authorized = is_authorized(request.headers.get("authorization"), request.app.state.token)
        error = str(exc) if authorized else "Redis does not respond, or cannot be used; see the console's log"
        return Json({"status": "unhealthy", "error": error}, HTTPStatus.SERVICE_UNAVAILABLE)
    return Json({"status": "healthy", "redis": "connected"})


# Queues


async def plain_stats(request: Request) -> Response:
    """Return seven values of each queue, with the names that other consoles use: `failed` counts the dead letters."""
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
    """Return the statistics of every queue."""
    return Json({"queues": [stats.to_json() for stats in await client_of(request).stats()]})


async def show_queue(request: Request) -> Response:
    """Return the statistics of a queue."""
    client, queue = client_of(request), queue_of(request)
    await check_queue_known(client, queue)
    return Json((await client.stats(queue)).to_json())


async def history(request: Request) -> Response:
    """Return the counters of the last minutes, oldest first. The last minute is not complete."""
    client, queue = client_of(request), queue_of(request)
    minutes = integer(request, "minutes", 60)
    if not 1 <= minutes <= 1_440:
        raise UsageError(f"?minutes={minutes} must be from 1 to 1440 (a day)")
    await check_queue_known(client, queue)
    found = await client.store.history(queue, until_ms=now_ms(), minutes=minutes)
    series = {name: [counters.get(name, 0) for _, counters in found] for name in SERIES}
    return Json({"since": iso(from_ms(found[0][0])), "minutes": minutes, **series})


async def pause(request: Request) -> Response:
    """Pause a queue: no more jobs start, and running jobs continue."""
    client, queue = client_of(request), queue_of(request)
    note = parse_fields(await read_object(request), note=str).get("note")
    await check_queue_known(client, queue)
    changed = await client.pause(queue, (note or "")[:200] or None)
    log.info("queue_paused", queue=queue, changed=changed, note=note)
    return Json({"paused": True, "changed": changed})


async def resume(request: Request) -> Response:
    """Resume a paused queue."""
    client, queue = client_of(request), queue_of(request)
    parse_fields(await read_object(request))
    await check_queue_known(client, queue)
    changed = await client.resume(queue)
    log.info("queue_resumed", queue=queue, changed=changed)
    return Json({"paused": False, "changed": changed})


# Schedules


async def list_schedules(request: Request) -> Response:
    """Return the schedules of a queue, each with its next time and its last run."""
    client, queue = client_of(request), queue_of(request)
    await check_queue_known(client, queue)
    return Json({"schedules": [schedule.to_json() for schedule in await client.schedules(queue)]})


async def run_schedule(request: Request) -> Response:
    """Enqueue the job of a schedule now: 202, with its address in Location. The next tick does not change."""
    client, queue, name = client_of(request), queue_of(request), request.path_params["name"]
    parse_fields(await read_object(request))
    await check_queue_known(client, queue)
    job = await client.run_schedule(queue, name)
    log.info("schedule_run", queue=queue, schedule=name, id=job.id)
    headers = {"Location": f"/api/jobs/{quote(job.id, safe='')}"}
    return Json({"queue": queue, "schedule": name, "id": job.id}, HTTPStatus.ACCEPTED, headers)


async def pause_schedule(request: Request) -> Response:
    """Pause a schedule: none of its ticks comes."""
    client, queue, name = client_of(request), queue_of(request), request.path_params["name"]
    note = parse_fields(await read_object(request), note=str).get("note")
    await check_queue_known(client, queue)
    changed = await client.pause_schedule(queue, name, (note or "")[:200] or None)
    log.info("schedule_paused", queue=queue, schedule=name, changed=changed, note=note)
    return Json({"paused": True, "changed": changed})


async def resume_schedule(request: Request) -> Response:
    """Resume a paused schedule, which goes on with its next time."""
    client, queue, name = client_of(request), queue_of(request), request.path_params["name"]
    parse_fields(await read_object(request))
    await check_queue_known(client, queue)
    changed = await client.resume_schedule(queue, name)
    log.info("schedule_resumed", queue=queue, schedule=name, changed=changed)
    return Json({"paused": False, "changed": changed})


# Jobs


async def enqueue(request: Request) -> Response:
    """Enqueue a job: 202, with its address in Location. For a known ID, return the existing job and its state."""
    client, queue = client_of(request), queue_of(request)
    job = _job_in(await read_object(request))
    if not boolean(request, "force"):
        await check_queue_known(client, queue, next_step=FORCE_HINT)
        await check_job_known(client, queue, job["name"], next_step=FORCE_HINT)
    sent = await client.enqueue(queue=queue, force=True, **job)
    log.debug("job_enqueued", queue=queue, job=job["name"], id=sent.id, deduplicated=sent.deduplicated)
    answer = {"id": sent.id, "queue": sent.queue or queue, "name": job["name"], "deduplicated": sent.deduplicated}
    if (known := await sent.known_status()) is not None:
        answer |= {"queue": known.queue, "name": known.name, "state": known.state}
    return Json(answer, HTTPStatus.ACCEPTED, {"Location": f"/api/jobs/{quote(sent.id, safe='')}"})


def _job_in(body: Mapping[str, Any]) -> dict[str, Any]:
    job = parse_fields(
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
    if "data" in body:  # null is a valid payload
        job["data"] = body["data"]
    if "name" not in job:
        raise UsageError('the body must name the job, as its handler has it: {"name": "search-flights", "data": …}')
    return job


async def list_jobs(request: Request) -> Response:
    """Return a page of jobs: `?state=&cursor=&limit=&fields=data,result`.

    The state is waiting, delayed, suspended, active, completed or dead.
    """
    client, queue = client_of(request), queue_of(request)
    await check_queue_known(client, queue)
    page = await client.jobs(
        queue,
        request.query_params.get("state") or None,
        request.query_params.get("cursor"),
        limit=integer(request, "limit", 50),
        fields=word_list(request, "fields"),
    )
    return Json({"jobs": [job.to_json() for job in page], "cursor": page.cursor})


async def show_job(request: Request) -> Response:
    """Return a job, with the errors of its attempts."""
    client, job_id = client_of(request), check_id(request.path_params["id"])
    queue = await find_queue(client.store, job_id)
    if queue is None:
        raise job_not_found(job_id)
    snapshot = await client.store.inspect(queue, job_id)
    status = status_of(snapshot)
    if status is None:
        raise job_not_found(job_id)
    return Json(status.to_json() | {"errors": [error_to_json(error) for error in _errors(snapshot)]})


def _errors(snapshot: Snapshot) -> Sequence[AttemptError]:
    """Return the error of each attempt, oldest first. If the record is not readable, the job's status explains it."""
    if snapshot.score is not None:
        return errors_of(snapshot.meta)
    try:
        if snapshot.dead:
            return decode_dead_letter(snapshot.dead["dead_letter"]).errors
        return decode_result(snapshot.result, job_id=snapshot.id).errors if snapshot.result else ()
    except InvalidPayload:
        return ()


async def cancel(request: Request) -> Response:
    """Cancel a job: 200 if it is cancelled, 202 if its worker stops it within a second, 409 if it has already ended."""
    job_id = check_id(request.path_params["id"])
    done = await client_of(request).cancel(job_id, cascade=boolean(request, "cascade", default=True))
    log.info("job_cancelled", id=job_id, cancellation=str(done))
    if done is Cancellation.TOO_LATE:
        raise HttpProblem(HTTPStatus.CONFLICT, f"job {job_id} has already ended; there is nothing to cancel")
    status = HTTPStatus.OK if done is Cancellation.CANCELLED else HTTPStatus.ACCEPTED
    return Json({"id": job_id, "cancellation": done}, status)


async def signal(request: Request) -> Response:
    """Send a signal to a job: `{"data": …, "sender": "ana", "id": "…"}`. 202, or 409 if the job has ended."""
    client, job_id, name = client_of(request), check_id(request.path_params["id"]), request.path_params["name"]
    body = await read_object(request)
    more = parse_fields(body, data=object, sender=str, id=str)
    counted = await client.signal(job_id, name, body.get("data"), sender=more.get("sender"), id=more.get("id"))
    log.info("signal_sent", id=job_id, signal=name, sender=more.get("sender"), deduplicated=not counted)
    return Json({"id": job_id, "signal": name, "deduplicated": not counted}, HTTPStatus.ACCEPTED)


async def stream(request: Request) -> Response:
    """Return what a job emits as server-sent events, from the one behind `Last-Event-ID` on, until the job ends.

    It takes the console's token, or one that is for this stream alone: `?token=`, or in the header Authorization.
    """
    return await event_stream(client_of(request), check_id(request.path_params["id"]), request)


# Dead letters


async def list_dead(request: Request) -> Response:
    """Return a page of dead letters, newest first: `?like=FINGERPRINT&cursor=&limit=&fields=data`."""
    client, queue = client_of(request), queue_of(request)
    await check_queue_known(client, queue)
    page = await client.dead_letters(
        queue,
        fingerprint=request.query_params.get("like"),
        cursor=request.query_params.get("cursor"),
        limit=integer(request, "limit", 50),
        fields=word_list(request, "fields"),
    )
    return Json({"dead": [dead_letter_to_json(letter) for letter in page], "cursor": page.cursor})


async def dead_groups(request: Request) -> Response:
    """Return the dead letters by kind, the most frequent kind first."""
    client, queue = client_of(request), queue_of(request)
    await check_queue_known(client, queue)
    groups = await client.dead_groups(queue)
    shown = [
        {"fingerprint": group.fingerprint, "count": group.count, "newest": dead_letter_to_json(group.newest)}
        for group in groups
    ]
    return Json({"groups": shown})


async def replay(request: Request) -> Response:
    """Send dead letters again: `{"ids": […]}`, `{"like": "fingerprint"}` or `{"all": true}`.

    They go on after their last step, unless `"fromStart": true` or `"fromStep": "NAME"` is given too.
    """
    client, queue = client_of(request), queue_of(request)
    body = await read_object(request)
    given = {name: body.pop(name, None) for name in ("fromStart", "fromStep")}
    place = parse_fields(given, fromStart=bool, fromStep=str)
    which = _selection(body)
    await check_queue_known(client, queue)
    done = await client.replay(
        queue, **which, from_start=place.get("fromStart", False), from_step=place.get("fromStep")
    )
    log.info("dead_letters_replayed", queue=queue, count=done.count, left=done.left, **_selection_for_log(which))
    left = {"unknown": done.not_found, "live": done.already_queued, "bare": done.no_record}
    if done.no_step:
        left["noStep"] = done.no_step
    return Json({"replayed": done.count, **left})


async def resolve(request: Request) -> Response:
    """Say what has become of a step: `{"step": "pay#1", "value": …}`, or `"runAgain": true`. The job runs again."""
    job_id = check_id(request.path_params["id"])
    body = await read_object(request)
    value = body.pop("value", OMITTED)
    given = parse_fields(body, step=str, runAgain=bool)
    if "step" not in given:
        raise UsageError('name the step: {"step": "pay#1", "value": …}')
    await client_of(request).resolve(job_id, given["step"], value, run_again=given.get("runAgain", False))
    log.info("step_resolved", id=job_id, step=given["step"], run_again=given.get("runAgain", False))
    return Json({"id": job_id, "step": given["step"]})


async def discard(request: Request) -> Response:
    """Discard dead letters, selected as for replay."""
    client, queue = client_of(request), queue_of(request)
    which = _selection(await read_object(request))
    await check_queue_known(client, queue)
    count = await client.discard(queue, **which)
    log.info("dead_letters_discarded", queue=queue, count=count, **_selection_for_log(which))
    return Json({"discarded": count})


def _selection(body: Mapping[str, Any]) -> dict[str, Any]:
    which = parse_fields(body, ids=list, like=str, all=bool)
    if which.get("all") is False:
        del which["all"]
    if len(which) != 1:
        raise UsageError('name the dead letters by exactly one of {"ids": […]}, {"like": "fingerprint"}, {"all": true}')
    return {"fingerprint" if name == "like" else name: value for name, value in which.items()}


def _selection_for_log(which: Mapping[str, Any]) -> dict[str, Any]:
    """Return the selection of dead letters for a log line, with a limited number of IDs."""
    return {**which, "ids": which["ids"][:MAX_LOGGED_IDS]} if "ids" in which else {**which}


def routes() -> list[Route]:
    """Return the routes of the API."""
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
        Route(f"{one}/schedules", list_schedules),
        Route(f"{one}/schedules/{{name}}/run", run_schedule, methods=["POST"]),
        Route(f"{one}/schedules/{{name}}/pause", pause_schedule, methods=["POST"]),
        Route(f"{one}/schedules/{{name}}/resume", resume_schedule, methods=["POST"]),
        Route(f"{one}/jobs", list_jobs),
        Route(f"{one}/jobs", enqueue, methods=["POST"]),
        Route(f"{one}/dead", list_dead),
        Route(f"{one}/dead/groups", dead_groups),
        Route(f"{one}/dead/replay", replay, methods=["POST"]),
        Route(f"{one}/dead/discard", discard, methods=["POST"]),
        Route("/api/jobs/{id:path}/signals/{name}", signal, methods=["POST"]),
        Route("/api/jobs/{id:path}/stream", stream),
        Route("/api/jobs/{id:path}/resolve", resolve, methods=["POST"]),
        Route("/api/jobs/{id:path}", show_job),
        Route("/api/jobs/{id:path}", cancel, methods=["DELETE"]),
    ]
