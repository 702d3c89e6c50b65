"""The travel example from end to end, for `make demo`: up, all requests, approvals, proposals, dead letters, drain.

All files are in a temporary folder, so the demo can run again. It needs no network.
"""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any, Final

import orjson
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from agentqueue.client import JobStatus, SyncClient
from agentqueue.clock import monotonic
from agentqueue.errors import AgentQueueError
from agentqueue.local.state import read_up_state
from agentqueue.model.dead_letter import DeadLetter

HERE: Final = Path(__file__).parent
COMMAND: Final = str(Path(sys.executable).with_name("agentqueue"))
START_S: Final = 30.0
WORK_S: Final = 90.0
DRAIN_S: Final = 30.0
LOOK_EVERY_S: Final = 0.1
BAD_REQUESTS: Final = 5
LOG_TAIL: Final = 4_000
console = Console(width=None if sys.stdout.isatty() else 140)


class DemoFailed(Exception):
    """The demo did not reach an expected state in time."""


class Running:
    """A child process with `agentqueue up`, in its own folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.travel = folder / "travel-data"
        self.log = folder / "up.log"
        self.started = monotonic()
        command = [COMMAND, "up", str(HERE / "agentqueue.yaml"), "--data", str(folder)]
        environment = {name: value for name, value in os.environ.items() if name != "SMTP_URL"}
        environment["TRAVEL_DATA"] = str(self.travel)
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(  # noqa: S603 - our own command
                command, stdout=output, stderr=output, env=environment, cwd=folder, start_new_session=True
            )

    @property
    def seconds(self) -> float:
        """Time since the start, in seconds."""
        return monotonic() - self.started

    def wait_for_server(self) -> str:
        """Wait for the server, and return its URL from the state file of `up`."""
        while (state := read_up_state(self.folder)) is None:
            self.check()
            if self.seconds > START_S:
                raise DemoFailed(f"`agentqueue up` had no server after {START_S:.0f} s")
            Event().wait(LOOK_EVERY_S)
        return state.connection["AGENTQUEUE_REDIS_URL"]

    def check(self) -> None:
        """Check that the process still runs."""
        if self.process.poll() is not None:
            raise DemoFailed(f"`agentqueue up` ended early, with {self.process.returncode}")

    def drain(self) -> None:
        """Press Ctrl-C, and again if the drain takes long. The process must then end with 0."""
        for _ in range(2):
            if self.process.poll() is None:
                self.process.send_signal(signal.SIGINT)
            try:
                code = self.process.wait(DRAIN_S)
            except subprocess.TimeoutExpired:
                continue
            if code != 0:
                raise DemoFailed(f"`agentqueue up` ended with {code}")
            return
        raise DemoFailed(f"`agentqueue up` (process {self.process.pid}) did not drain within {2 * DRAIN_S:.0f} s")


@contextmanager
def running(folder: Path) -> Iterator[Running]:
    """Run `agentqueue up` and drain it at the end. An error in the block prints the end of the log."""
    up = Running(folder)
    try:
        try:
            yield up
        finally:
            up.drain()
    except BaseException:
        console.rule("the end of the log")
        console.print(up.log.read_text(errors="replace")[-LOG_TAIL:], markup=False, highlight=False)
        raise


def read_requests() -> dict[str, dict[str, Any]]:
    """Return the requests in requests.jsonl, by ID."""
    lines = (HERE / "requests.jsonl").read_text().splitlines()
    return {request["requestId"]: request for request in map(orjson.loads, filter(None, lines))}


def submit(client: SyncClient, requests: Mapping[str, dict[str, Any]]) -> None:
    """Send each request to the orchestrator, with its own ID, so that a request that is sent twice runs once."""
    client.enqueue_many(
        {"queue": "orchestrator", "name": "plan-trip", "data": request, "id": name, "priority": request["priority"]}
        for name, request in requests.items()
    )


def approve(client: SyncClient, approved: set[str]) -> None:
    """Approve the proposals that wait for a person, as `agentqueue signal ID approval '{"approved": true}'` does."""
    for job in client.jobs("communication", "suspended", limit=100):
        if job.id not in approved:
            client.signal(job.id, "approval", {"approved": True}, sender="the demo")
            approved.add(job.id)


def follow(client: SyncClient, up: Running, requests: int) -> None:
    """Show progress until each request has a proposal or a dead letter, and all queues are empty."""
    first: float | None = None
    approved: set[str] = set()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        tasks = {name: progress.add_task(name, total=requests) for name in ("proposals", "dead letters")}
        while True:
            up.check()
            approve(client, approved)
            found = client.stats()
            sent = sum(1 for _ in up.travel.glob("outbox/*.eml"))
            dead = sum(stats.dead for stats in found)
            progress.update(tasks["proposals"], completed=sent)
            progress.update(tasks["dead letters"], completed=dead)
            if first is None and sent:
                first = up.seconds
                console.print(f"first proposal {first:.1f} s after `up` was started")
            if sent + dead >= requests and not any(s.waiting + s.active + s.delayed + s.suspended for s in found):
                break
            if up.seconds > WORK_S:
                raise DemoFailed(f"{sent + dead} of {requests} requests ended within {WORK_S:.0f} s")
            Event().wait(LOOK_EVERY_S)
    console.print(f"{len(approved)} expensive proposals waited for an approval, without a slot, and were approved")
    console.print(f"all {requests} requests ended {up.seconds:.1f} s after `up` was started")


def show_proposals(jobs: list[JobStatus]) -> None:
    """Print the proposals that `communication` has sent."""
    table = Table(title=f"{len(jobs)} proposals", box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    for name in ("request", "client", "trip", "best offer"):
        table.add_column(name)
    table.add_column("price", justify="right", style="green", no_wrap=True)
    for job in sorted(jobs, key=lambda job: str(job.data["requestId"])):
        best = job.data["offers"][0]
        offer = f"{best['aircraft']}, {best['operatorName']}"
        table.add_row(
            job.data["requestId"], job.data["recipientEmail"], job.data["summary"], offer, f"€ {best['price']:,}"
        )
    console.print(table)


def show_dead(letters: list[DeadLetter], requests: Mapping[str, dict[str, Any]]) -> None:
    """Print the messages of the bad requests, and why they cannot be served."""
    table = Table(title=f"{len(letters)} bad requests, explained", box=box.SIMPLE_HEAD, show_lines=True)
    table.title_justify, table.title_style = "left", "bold"
    for name in ("request", "what the client wrote", "refused by", "reason", "why"):
        table.add_column(name)
    for letter in sorted(letters, key=lambda letter: str(letter.data["requestId"])):
        request = requests[letter.data["requestId"]]
        wrote = f"{request['message']}\n{request['clientEmail']}"
        table.add_row(request["requestId"], wrote, letter.queue, str(letter.reason), letter.errors[-1].message)
    console.print(table)


def show_command(url: str, *words: str) -> None:
    """Run an `agentqueue` command, and print it with its output."""
    console.print(f"$ agentqueue {' '.join(words)}", style="bold", highlight=False)
    environment = {**os.environ, "AGENTQUEUE_REDIS_URL": url, "COLUMNS": str(console.width)}
    ran = subprocess.run(  # noqa: S603 - our own command
        [COMMAND, *words], env=environment, capture_output=True, text=True, timeout=START_S, check=False
    )
    console.print(ran.stdout + ran.stderr, markup=False, highlight=False, soft_wrap=True)
    if ran.returncode != 0:
        raise DemoFailed(f"`agentqueue {' '.join(words)}` ended with {ran.returncode}")


def check(up: Running, jobs: list[JobStatus], letters: list[DeadLetter], requests: Mapping[str, Any]) -> None:
    """Check that each request ended once: as a proposal in the outbox, or as a dead letter with an incident."""
    sent = sorted(path.stem for path in up.travel.glob("outbox/*.eml"))
    ended = sorted([*(name.removeprefix("P-") for name in sent), *(letter.data["requestId"] for letter in letters)])
    incidents = sum(1 for _ in up.travel.glob("incidents/*.txt"))
    if sent != sorted(job.data["proposalId"] for job in jobs):
        raise DemoFailed("the outbox does not have the proposals that `communication` reported")
    if ended != sorted(requests) or len(letters) != BAD_REQUESTS:
        raise DemoFailed(f"{len(sent)} proposals and {len(letters)} dead letters are not what was expected")
    if incidents != len(letters):
        raise DemoFailed(f"{incidents} incidents for {len(letters)} dead letters")


def demo(folder: Path) -> None:
    """Run the whole demo."""
    requests = read_requests()
    console.print(f"agentqueue up {HERE.name}/agentqueue.yaml: six agents, an embedded Valkey, nothing else")
    with running(folder) as up:
        url = up.wait_for_server()
        with SyncClient(url) as client:
            submit(client, requests)
            console.print(f"{len(requests)} requests sent to the orchestrator")
            follow(client, up, len(requests))
            jobs = list(client.jobs("communication", "completed", limit=1_000, fields=["data", "result"]))
            letters = [
                letter for stats in client.stats() for letter in client.dead_letters(stats.name, fields=["data"])
            ]
        show_proposals(jobs)
        show_dead(letters, requests)
        show_command(url, "dead", "list")
        show_command(url, "stats")
        check(up, jobs, letters, requests)
    console.print(f"drained. {len(jobs)} proposals sent, {len(letters)} requests explained, none lost, none twice")


def main() -> int:
    """Return 0 if every request ended as expected."""
    with tempfile.TemporaryDirectory(prefix="agentqueue-demo-") as name:
        try:
            demo(Path(name))
        except (DemoFailed, AgentQueueError) as failure:
            console.print(f"the demo failed: {failure}", style="bold red", markup=False)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
