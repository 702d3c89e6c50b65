"""The services that the agents call, on this machine: a language model and a shop. `python -m assistants.services`.

The model answers as an OpenAI-compatible server (`POST /v1/chat/completions`), at once or as a stream, with text or
with a tool call. The shop takes payments with an idempotency key. Every request is counted, and faults can be ordered:
a status such as 429 or 500, or a slow answer.
"""

import argparse
import json
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

QUERIES = ("price", "history", "rivals")
"""What the model wants to be searched for each topic."""
USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
PRICES = {"laptop": 1_900, "pencil": 2}
"""Prices of the shop, in euros. Other things cost 100."""


@dataclass(frozen=True)
class Fault:
    """A fault of one answer of the model."""

    status: int = 200
    """Status of the answer. 200: the answer is right, but comes late."""
    delay: float = 0.0
    """Seconds until the answer begins."""
    retry_after: int = 0
    """Value of the header Retry-After, in seconds."""


@dataclass
class TokenLimit:
    """A limit of the model on tokens, as it counts them itself: `max_tokens` of each request, when it arrives."""

    tokens: int
    """Tokens in any window."""
    window: float = 60.0
    """Length of the window, in seconds."""
    taken: list[tuple[float, int]] = field(default_factory=list)
    """Time and tokens of each request that was taken."""
    refused: int = 0
    """Number of requests that were refused with 429."""

    def take(self, tokens: int) -> bool:
        """Count a request, unless it goes over the limit."""
        now = time.monotonic()
        if sum(count for at, count in self.taken if at > now - self.window) + tokens > self.tokens:
            self.refused += 1
            return False
        self.taken.append((now, tokens))
        return True


@dataclass
class Records:
    """What the services were asked."""

    prompts: Counter[str] = field(default_factory=Counter)
    """Number of answers that the model began, by prompt."""
    model_delay: float = 0.0
    """Seconds that each answer of the model takes."""
    word_delay: float = 0.0
    """Seconds between the words of a streamed answer."""
    payments: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Payments by idempotency key."""
    payment_calls: int = 0
    payment_delay: float = 0.0
    """Seconds between a payment and its answer."""
    token_limit: TokenLimit | None = None
    """Limit of the model. Requests over it are answered with 429."""
    faults: deque[Fault] = field(default_factory=deque)
    """Faults of the next answers of the model."""
    asked: threading.Condition = field(default_factory=threading.Condition)
    """Notified at each request."""

    def wait(self, seconds: float = 0.1) -> None:
        """Wait for the next request, or for that many seconds."""
        with self.asked:
            self.asked.wait(seconds)

    @property
    def model_calls(self) -> int:
        """Number of requests to the model."""
        return self.prompts.total()


def conversation_of(messages: list[dict[str, Any]]) -> tuple[str, int]:
    """Return the last prompt of a conversation, and how many results of tools came after it."""
    results = 0
    for message in reversed(messages):
        if message["role"] == "user":
            content = message["content"]
            return content if isinstance(content, str) else "".join(part["text"] for part in content), results
        results += message["role"] == "tool"
    return "", results


def answer(prompt: str, tools: list[dict[str, Any]], results: int = 0) -> dict[str, Any]:
    """Return the model's message. The first word of the prompt decides: it is the same for the same prompt.

    Args:
        prompt: What the model is asked.
        tools: The tools that it may call.
        results: How many calls of tools have returned since the prompt.
    """
    word, _, rest = prompt.partition(": ")
    match word:
        case "Plan":
            content = json.dumps({"queries": [f"{rest} {query}" for query in QUERIES]})
        case "Search":
            content = f"All about {rest}."
        case "Write":
            content = f"A report on {rest}"
        case "Choose" if tools:
            return tool_calls(tools[0], [{"item": rest, "price": PRICES.get(rest, 100)}])
        case "Visit" if tools and results < len(places := rest.split(", ")):  # one call after the other
            return tool_calls(tools[0], [{"place": places[results]}], first=results + 1)
        case "Compare" if tools and not results:  # all calls at once
            return tool_calls(tools[0], [{"place": place} for place in rest.split(", ")])
        case "Visit" | "Compare":
            content = f"I have seen {rest}."
        case _:
            content = f"I do not know what to do with {prompt!r}."
    return {"role": "assistant", "content": content}


def tool_calls(tool: Mapping[str, Any], calls: list[dict[str, Any]], first: int = 1) -> dict[str, Any]:
    """Return a message that calls a tool with each of the arguments."""
    functions = [{"name": tool["function"]["name"], "arguments": json.dumps(arguments)} for arguments in calls]
    numbered = [
        {"id": f"call_{number}", "type": "function", "function": function}
        for number, function in enumerate(functions, first)
    ]
    return {"role": "assistant", "content": None, "tool_calls": numbered}


def chunks_of(message: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Return a message as the deltas of a stream: its words, or its tool calls."""
    if message["content"] is None:
        yield {"tool_calls": [{"index": index, **call} for index, call in enumerate(message["tool_calls"])]}
        return
    for word in message["content"].split(" "):
        yield {"content": f"{word} "}


class Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    protocol_version = "HTTP/1.1"
    server: "Server"

    def do_POST(self) -> None:
        """Answer a request to the model or to the shop."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/v1/chat/completions":
            self._complete(body)
        elif self.path == "/shop/payments":
            self._pay(body, self.headers["Idempotency-Key"])
        else:
            self._send(404, {"error": {"message": f"no such path: {self.path}"}})

    def do_GET(self) -> None:
        """Return the payment of an idempotency key."""
        (key,) = parse_qs(urlsplit(self.path).query)["key"]
        payment = self.server.records.payments.get(key)
        self._send(404 if payment is None else 200, payment or {"error": {"message": "no such payment"}})

    def _complete(self, body: Mapping[str, Any]) -> None:
        records, (prompt, results) = self.server.records, conversation_of(body["messages"])
        with records.asked:
            records.prompts[f"{prompt} #{results}" if results else prompt] += 1
            fault = records.faults.popleft() if records.faults else Fault()
            tokens = body.get("max_tokens", USAGE["total_tokens"])
            if fault.status == 200 and records.token_limit is not None and not records.token_limit.take(tokens):
                fault = Fault(429, retry_after=1)
            records.asked.notify_all()
        time.sleep(fault.delay or records.model_delay)
        if fault.status != 200:
            self._send(fault.status, {"error": {"message": "an ordered fault"}}, retry_after=fault.retry_after)
            return
        message = answer(prompt, body.get("tools", []), results)
        head = {"id": f"chatcmpl-{records.model_calls}", "created": 1_800_000_000, "model": body["model"]}
        reason = "tool_calls" if message["content"] is None else "stop"
        if body.get("stream"):
            self._stream({**head, "object": "chat.completion.chunk"}, message, reason)
        else:
            choice = {"index": 0, "message": message, "finish_reason": reason}
            usage = {**USAGE, "total_tokens": tokens} if records.token_limit is not None else USAGE
            self._send(200, {**head, "object": "chat.completion", "choices": [choice], "usage": usage})

    def _stream(self, head: Mapping[str, Any], message: Mapping[str, Any], reason: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        for delta in chunks_of(message):
            self._event({**head, "choices": [{"index": 0, "delta": delta}]})
            time.sleep(self.server.records.word_delay)
        self._event({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": reason}], "usage": USAGE})
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True

    def _event(self, event: Mapping[str, Any]) -> None:
        self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())

    def _pay(self, body: Mapping[str, Any], key: str) -> None:
        records = self.server.records
        with records.asked:
            records.payment_calls += 1
            payment = records.payments.setdefault(key, {"id": f"pay-{len(records.payments) + 1}", **body})
            records.asked.notify_all()
        time.sleep(records.payment_delay)
        self._send(200, payment)

    def _send(self, status: int, body: Mapping[str, Any], *, retry_after: int = 0) -> None:
        raw = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        if retry_after:
            self.send_header("Retry-After", str(retry_after))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base class's name
        """Log nothing."""


class Server(ThreadingHTTPServer):
    """The services in threads of this process: `with Server() as services: services.url`."""

    daemon_threads = True
    request_queue_size = 256  # Many workers connect at the same time.

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.records = Records()

    @property
    def url(self) -> str:
        """Return the address, without a path."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that went away, such as a worker that was killed."""


def main() -> None:
    """Serve until the program is interrupted."""
    parser = argparse.ArgumentParser(description="A language model and a shop, for the agents of this example.")
    parser.add_argument("--port", type=int, default=8087)
    server = Server(parser.parse_args().port)
    print(f"export SERVICES_URL={server.url}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
