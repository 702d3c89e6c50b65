"""For any request, the console sends a well-formed response, and never an internal error."""

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import orjson
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from agentqueue import Client
from agentqueue.console.app import create_app
from agentqueue.console.auth import HEADERS, AccessMiddleware
from agentqueue.store import Server
from tests.support.raw_queue import RawQueue

TOKEN = "a-long-token"


def as_json(value: Any) -> bytes:
    """Return JSON text that can have NaN and numbers of any size."""
    return json.dumps(value).encode("utf-8", "surrogatepass")


def quoted(text: str) -> str:
    """Return a text with each byte percent-encoded."""
    return "".join(f"%{byte:02X}" for byte in text.encode("utf-8", "replace"))


LARGE = "9" * 5_000
NUMBERS = ["", "0", "1", "-1", "1.5", "1e9", "²", "9223372036854775807", "9223372036854775808", LARGE, "NaN", "true"]
CURSORS = [
    *("waiting", "dead", "cancelled", "waiting:0", "completed:5", "dead:²", "a:b:c", ":", "::0", f"{LARGE}:0"),
    *("waiting:9223372036854775807", f"waiting:{LARGE}", "completed:9223372036854775807"),
    *("1700000000000:0", "1700000000000:9223372036854775806", "²:0"),
]
NAMES = ["q", "q:dead", "aq:queues", "j0", "a b", "ü", "..", "../../etc/passwd", "x" * 9_000]
STRANGE = ["\0", "\n", "\r\nX: y", "%", "%00", "%E0%A4%A", "<b>", "'", '"', "*", "{}", "[1]", "\ud7ff"]
TEXTS = st.one_of(st.sampled_from([*NUMBERS, *CURSORS, *NAMES, *STRANGE]), st.text(max_size=20))
PARAMETERS = st.sampled_from(["state", "cursor", "limit", "like", "minutes", "force", "fields", "x"])
OF_A_QUEUE = ["", "/history", "/pause", "/resume", "/jobs", "/dead", "/dead/groups", "/dead/replay", "/dead/discard"]
OF_A_QUEUE += ["/schedules", *(f"/schedules/nightly/{word}" for word in ("run", "pause", "resume"))]
PLACES = ["/", "/healthz", "/api/health/queue", "/api/queue/stats", "/api/queues", "/api/queues/"]
PATHS = st.one_of(
    st.sampled_from(PLACES),
    st.builds("/api/queues/{}{}".format, TEXTS.map(quoted), st.sampled_from(OF_A_QUEUE)),
    st.builds("{}{}".format, st.sampled_from(["/", "/api/", "/api/jobs/", "/static/"]), TEXTS.map(quoted)),
)
METHODS = st.sampled_from(["GET", "POST", "DELETE", "HEAD", "PUT", "OPTIONS", "TRACE", "NONSENSE"])
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), TEXTS, st.sampled_from([2**63, 10**400, 1e308])
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=5
)
ENQUEUED = ["name", "data", "priority", "delay", "id", "tags", "timeout", "attempts", "backoff", "tenant", "trace"]
FIELDS = st.sampled_from([*ENQUEUED, "ids", "like", "all", "note", "x"])
OBJECTS = st.dictionaries(FIELDS, VALUES, max_size=4)
HEADER_NAMES = st.sampled_from(
    [
        *(
            b"host",
            b"content-type",
            b"content-length",
            b"range",
            b"if-none-match",
            b"if-modified-since",
            b"x-forwarded-for",
        ),
        *(
            b"x-forwarded-host",
            b"accept-encoding",
            b"accept",
            b"cookie",
            b"connection",
            b"expect",
            b"transfer-encoding",
        ),
    ]
)
RANGES = [b"bytes=0-", b"bytes=9-1,x", b"bytes=" + b"9" * 5_000]
HEADER_VALUES = st.one_of(
    st.sampled_from([b"", b"[", b"http://[::1", b"*", b"\xff", b"application/json", *RANGES]),
    st.binary(max_size=20),
    TEXTS.map(lambda text: text.encode("utf-8", "replace")),
)
KNOWN = (b"authorization", f"Bearer {TOKEN}".encode())
JSON = (b"content-type", b"application/json")


@dataclass(frozen=True)
class Ask:
    method: str
    path: str
    query: str = ""
    headers: tuple[tuple[bytes, bytes], ...] = (KNOWN,)
    body: bytes = b""


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


@pytest.fixture
def loop() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture
def ask(loop: asyncio.Runner, server_url: str) -> Iterator[Callable[[Ask], Answer]]:
    """Yield a console with a queue that has a job of each state."""
    client = Client(server_url)
    app = create_app(client, token=TOKEN)
    loop.run(fill(client))
    yield lambda asked: loop.run(request(app, asked))
    loop.run(client.close())
    app.repeated_logs.close()


async def fill(client: Client) -> None:
    for number in range(4):
        await client.enqueue("q", "search", {"n": number}, id=f"j{number}")
    await client.enqueue("q", "search", id="later", delay=3_600)
    async with Server(client.server.options) as server:
        raw_queue = RawQueue(server, "q")
        await raw_queue.complete(await raw_queue.claim_one(), {"x": 1})
        await raw_queue.add_dead_letter(await raw_queue.claim_one())
        await raw_queue.claim_one()


async def request(app: AccessMiddleware, asked: Ask) -> Answer:
    """Send a request in the form of uvicorn: with a decoded path, and header names in lower case."""
    sent: list[Any] = []
    left = [asked.body]

    async def receive() -> Any:
        return {"type": "http.request", "body": left.pop(), "more_body": False} if left else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": asked.method,
        "scheme": "http",
        "path": unquote(asked.path),
        "raw_path": asked.path.encode(),
        "query_string": asked.query.encode(),
        "root_path": "",
        "headers": list(asked.headers),
        "client": ("127.0.0.1", 5),
        "server": ("127.0.0.1", 8400),
        "state": {},
    }
    await app(scope, receive, send)
    first = sent[0]
    fields = {name.decode("latin-1"): value.decode("latin-1") for name, value in first["headers"]}
    return Answer(first["status"], fields, b"".join(message.get("body", b"") for message in sent[1:]))


def check(answer: Answer, method: str) -> None:
    assert answer.status < 500, answer
    missing = {name for name, value in HEADERS.items() if answer.headers.get(name.lower()) != value}
    assert not missing
    if answer.status < 400:
        return
    if answer.status == 401:
        assert (answer.body, answer.headers["www-authenticate"]) == (b'{"error":"Unauthorized"}', "Bearer")
        return
    assert answer.headers["content-type"] == "application/problem+json"
    if method != "HEAD":
        problem = orjson.loads(answer.body)
        assert (problem["status"], problem.keys()) == (answer.status, {"type", "title", "status", "detail", "instance"})


ROUNDS = settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


HEADERS_SENT = st.builds(
    lambda known, sent: (*known, *sent),
    st.sampled_from([(), (KNOWN,), (KNOWN, JSON)]),
    st.lists(st.tuples(HEADER_NAMES, HEADER_VALUES), max_size=3),
)
QUERIES = st.lists(st.tuples(PARAMETERS, TEXTS), max_size=3).map(
    lambda pairs: "&".join(f"{name}={quoted(value)}" for name, value in pairs)
)
CONTENT = st.one_of(
    OBJECTS.map(as_json), VALUES.map(as_json), st.binary(max_size=50), st.sampled_from([b"[" * 100_000, b"\xff\xfe"])
)
JOBS, DEAD = "/api/queues/q/jobs", "/api/queues/q/dead"


@ROUNDS
@given(st.builds(Ask, METHODS, PATHS, QUERIES, HEADERS_SENT, CONTENT))
@example(Ask("GET", JOBS, f"state=waiting&cursor=waiting:{LARGE}"))
@example(Ask("GET", JOBS, "state=completed&cursor=completed:9223372036854775807"))
@example(Ask("GET", DEAD, "cursor=%C2%B2:0"))
@example(Ask("GET", DEAD, f"cursor={LARGE}:0"))
@example(Ask("GET", "/api/nothing", headers=(KNOWN, (b"host", b"["))))
@example(Ask("GET", "/api/queues/", headers=(KNOWN, (b"host", b"elsewhere"))))
@example(Ask("GET", "/static/console.js", headers=((b"range", b"bytes=9-1,x"),)))
@example(Ask("GET", "/static/%00", headers=()))
def test_every_answer_is_guarded_and_none_is_a_failure(ask: Callable[[Ask], Answer], asked: Ask) -> None:
    check(ask(asked), asked.method)


@ROUNDS
@given(st.sampled_from(["jobs", "pause", "resume", "dead/replay", "dead/discard"]), OBJECTS, st.booleans())
@example("jobs", {"name": "search", "delay": 1e308}, True)
@example("jobs", {"name": "search", "timeout": 10**400}, True)
@example("dead/replay", {"like": "x" * 9_000}, False)
def test_no_body_makes_the_console_fail(
    ask: Callable[[Ask], Answer], path: str, body: dict[str, Any], force: bool
) -> None:
    query = f"force={str(force).lower()}"
    check(ask(Ask("POST", f"/api/queues/q/{path}", query, (KNOWN, JSON), as_json(body))), "POST")


@pytest.mark.parametrize(
    "query",
    [
        f"state=waiting&cursor=waiting:{LARGE}",
        "state=completed&cursor=completed:9223372036854775807",
        "state=dead&cursor=dead:-1",
    ],
    ids=["5,000 digits", "an offset that Redis can't add to", "a negative one"],
)
def test_a_cursor_that_no_page_had_is_the_callers_mistake(ask: Callable[[Ask], Answer], query: str) -> None:
    answer = ask(Ask("GET", JOBS, query))
    assert (answer.status, "invalid cursor" in orjson.loads(answer.body)["detail"]) == (400, True)
