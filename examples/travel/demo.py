"""The travel example from end to end, as `make demo` runs it: up, all requests, proposals, dead letters, drain.

Everything lives in a temporary folder, so it runs again and again, and without a network.
"""

import email
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from email.policy import default
from pathlib import Path
from threading import Event

import orjson
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from agentqueue.client import SyncClient
from agentqueue.clock import monotonic
from agentqueue.upstate import read_up_state

HERE = Path(__file__).parent
QUEUES = ("orchestrator", "client-data", "flight-search", "proposal-analysis", "communication", "error-monitor")
START_S = 30.0
WORK_S = 90.0
LOOK_EVERY_S = 0.1
BAD_REQUESTS = 5
console = Console()


class DemoFailed(Exception):
    """What was waited for did not come."""


@contextmanager
def running(folder: Path) -> Iterator[str]:
    """`agentqueue up` in the folder; its Redis URL. At the end it drains, and must exit with 0."""
    log = folder / "up.log"
    command = [
        str(Path(sys.executable).with_name("agentqueue")),
        "up",
        str(HERE / "agentqueue.yaml"),
        "--data",
        str(folder),
    ]
    environment = {**os.environ, "TRAVEL_DATA": str(folder / "travel-data")}
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment, cwd=folder)  # noqa: S603 - our own command
    try:
        yield wait_for_server(folder, process)
    except BaseException:
        console.print(log.read_text(errors="replace")[-3_000:], markup=False)
        raise
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        code = process.wait(timeout=START_S)
    if code != 0:
        raise DemoFailed(f"`agentqueue up` ended with {code}: {log.read_text(errors='replace')[-1_000:]}")
    console.print("drained, nothing left running")


def wait_for_server(folder: Path, process: "subprocess.Popen[bytes]") -> str:
    """The URL from the note that `up` leaves in its folder."""
    deadline = monotonic() + START_S
    while (state := read_up_state(folder)) is None:
        if process.poll() is not None or monotonic() > deadline:
            raise DemoFailed("`agentqueue up` did not start; its log is above")
        Event().wait(LOOK_EVERY_S)
    return state.redis_url


def submit(client: SyncClient) -> int:
    """Every request of requests.jsonl to the orchestrator; its id is the job's."""
    requests = [orjson.loads(line) for line in (HERE / "requests.jsonl").read_text().splitlines() if line.strip()]
    jobs = client.enqueue_many(
        {
            "queue": "orchestrator",
            "name": "plan-trip",
            "data": request,
            "id": request["requestId"],
            "priority": request["priority"],
        }
        for request in requests
    )
    return len(list(jobs))


def follow(client: SyncClient, submitted: int, outbox: Path) -> None:
    """Show progress until every request has a proposal or a dead letter, and nothing waits or runs."""
    started, first = monotonic(), True
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("requests", total=submitted)
        while True:
            found = [client.stats(queue) for queue in QUEUES]
            ended = len(list(outbox.glob("*.eml"))) + sum(stats.dead for stats in found)
            progress.update(task, completed=ended)
            if ended and first:
                first = False
                console.print(f"first result after {monotonic() - started:.1f} s")
            if ended >= submitted and not any(stats.waiting + stats.active + stats.delayed for stats in found):
                return
            if monotonic() > started + WORK_S:
                raise DemoFailed(f"{ended} of {submitted} requests ended within {WORK_S:.0f} s")
            Event().wait(LOOK_EVERY_S)


def show_proposals(outbox: Path) -> int:
    """What was sent, from the outbox. Returns how many."""
    table = Table("to", "proposal", "best offer", title="Proposals")
    files = sorted(outbox.glob("*.eml"))
    for path in files:
        message = email.message_from_bytes(path.read_bytes(), policy=default)
        body = message.get_body()
        text = body.get_content() if body is not None else ""
        best = next((line for line in text.splitlines() if line.startswith("1. ")), "")
        table.add_row(str(message["To"]), str(message["Subject"]).removeprefix("Your charter: "), best[3:])
    console.print(table)
    return len(files)


def show_dead(client: SyncClient) -> int:
    """The requests that failed, and why, by kind. Returns how many."""
    table = Table("queue", "job", "reason", "what is wrong", title="Requests that could not be served")
    letters = [letter for queue in QUEUES for letter in client.dead_letters(queue)]
    for letter in letters:
        table.add_row(letter.queue, letter.id, str(letter.reason), letter.error.splitlines()[0])
    console.print(table)
    console.print("`agentqueue dead list` groups them by fingerprint; `dead replay --all` sends them again")
    return len(letters)


def main() -> int:
    """0: every request ended as it should."""
    with tempfile.TemporaryDirectory(prefix="agentqueue-demo-") as name:
        folder = Path(name)
        outbox = folder / "travel-data" / "outbox"
        try:
            with running(folder) as url, SyncClient(url) as client:
                submitted = submit(client)
                console.print(f"{submitted} requests sent to the orchestrator")
                follow(client, submitted, outbox)
                proposals, dead = show_proposals(outbox), show_dead(client)
        except DemoFailed as failure:
            console.print(f"the demo failed: {failure}", style="red", markup=False)
            return 1
    console.print(f"{submitted} requests: {proposals} proposals, {dead} explained")
    return 0 if proposals + dead == submitted and dead == BAD_REQUESTS else 1


if __name__ == "__main__":
    sys.exit(main())
