"""The command line against real servers, in pipes, on a terminal, and as a process."""

import json
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any

import pytest

from agentqueue.cli.main import run
from agentqueue.client import SyncClient
from agentqueue.model.job import decode_job
from agentqueue.model.schedule import Schedule
from agentqueue.store import Schedules, Server, ServerOptions
from tests.support.raw_queue import RawQueue

Act = Callable[[RawQueue], Awaitable[Any]]


@pytest.fixture(autouse=True)
def environment(server_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AGENTQUEUE_REDIS_URL", server_url)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def client(server_url: str) -> Iterator[SyncClient]:
    with SyncClient(server_url) as connected:
        yield connected


class Cli:
    """Runs commands in this process. `err` has the standard error of the last one."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str, code: int = 0) -> str:
        """Run a command and return its standard output."""
        found = run(arguments)
        self.out, self.err = self._capsys.readouterr()
        assert found == code, f"exit {found}: {self.out}{self.err}"
        assert "Traceback" not in self.err
        return self.out

    def json(self, *arguments: str, code: int = 0) -> Any:
        """Run a command with --json and return its output."""
        return json.loads(self(*arguments, "--json", code=code))


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(capsys)


@pytest.fixture
def with_raw_queue(server_url: str) -> Callable[..., Any]:
    """Return a function that acts as a worker on the server."""
    import asyncio

    def work(act: Act, queue: str = "flights", worker: str = "hand") -> Any:
        async def connected() -> Any:
            async with Server(ServerOptions(server_url)) as server:
                return await act(RawQueue(server, queue, worker=worker))

        return asyncio.run(connected())

    return work


async def add_dead_letters(raw_queue: RawQueue) -> None:
    while claimed := await raw_queue.claim(10):
        for job in claimed:
            await raw_queue.add_dead_letter(job, f"no airport 'X{job.id}'")


def stdin(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO(text.encode())))


class TestSubmit:
    def test_in_a_pipe_it_prints_the_id(self, cli: Cli, client: SyncClient) -> None:
        job_id = cli(
            "submit", "flights", "search", '{"from": "BER"}', "-p", "urgent", "--tag", "a", "--delay", "60"
        ).strip()
        status = client.job(job_id).status()
        assert (status.state, status.data, status.priority) == ("delayed", {"from": "BER"}, "urgent")

    def test_json_tells_what_was_known(self, cli: Cli) -> None:
        first = cli.json("submit", "flights", "search", "--id", "trip")
        assert first == {"id": "trip", "queue": "flights", "name": "search", "deduplicated": False}
        again = cli.json("submit", "flights", "other", "--id", "trip")
        assert again == {"id": "trip", "queue": "flights", "name": "search", "deduplicated": True, "state": "waiting"}

    def test_the_status_shows_where_a_job_comes_from_and_whom_it_is_for(self, cli: Cli, client: SyncClient) -> None:
        client.enqueue("flights", "search", id="trip", tags=["acme", "vip"], tenant="acme", trace="00-1-2-01")
        out = cli("status", "trip")
        for word in ("acme, vip", "tenant", "trace", "00-1-2-01"):
            assert word in out
        assert cli.json("status", "trip")["tags"] == ["acme", "vip"]
        client.enqueue("flights", "search", id="plain")
        assert "tenant" not in cli("status", "plain")

    def test_null_is_a_payload(self, cli: Cli, with_raw_queue: Callable[..., Any]) -> None:
        cli("submit", "flights", "search")
        cli("submit", "flights", "search", "null")

        async def look(raw_queue: RawQueue) -> list[Any]:
            return [decode_job(job.record or b"").args for job in await raw_queue.claim(2)]

        assert with_raw_queue(look) == [[], [None]]

    def test_a_known_id_is_reported_with_the_state_of_its_job(
        self, cli: Cli, client: SyncClient, with_raw_queue: Callable[..., Any]
    ) -> None:
        client.enqueue("flights", "search", id="trip")
        assert cli("submit", "flights", "search", "--id", "trip") == "trip\n"
        assert "trip was known already and is waiting; nothing was sent" in cli.err

        async def die(raw_queue: RawQueue) -> None:
            await raw_queue.add_dead_letter(await raw_queue.claim_one())

        with_raw_queue(die)
        cli("submit", "flights", "search", "--id", "trip")
        assert "is dead; nothing was sent. Run it again with `agentqueue dead replay flights trip`" in cli.err
        cli("dead", "discard", "flights", "trip")
        cli("submit", "flights", "search", "--id", "trip")
        assert cli.err == ""
        assert client.job("trip").status().state == "waiting"

    def test_a_mistyped_queue_is_refused_with_the_nearest(self, cli: Cli, client: SyncClient) -> None:
        client.enqueue("flight-search", "search")
        cli("submit", "flight-serch", "search", code=3)
        assert "no queue 'flight-serch' is known here; did you mean 'flight-search'?" in cli.err
        assert "--force" in cli.err
        cli("submit", "flight-serch", "search", "--force")
        assert client.queues() == ["flight-search", "flight-serch"]

    def test_a_mistyped_job_is_refused_with_the_nearest_that_is_registered(
        self, cli: Cli, client: SyncClient, with_raw_queue: Callable[..., Any]
    ) -> None:
        with_raw_queue(lambda raw_queue: raw_queue.register("search-flights", "tick"))
        cli("submit", "flights", "serch-flights", code=3)
        assert "did you mean 'search-flights'?" in cli.err
        cli("submit", "flights", "search-flights")
        cli("submit", "flights", "serch-flights", "--force")
        assert client.stats("flights").waiting == 2

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            pytest.param(("{a: 1}",), "the payload is not JSON", id="json"),
            pytest.param(("world",), """or, a text, '"world"'""", id="bare-text"),
            pytest.param(('{"a": NaN}',), "the payload is not JSON", id="nan"),
            pytest.param(("12345678901234567890123",), "integer 12345678901234567890123, which is over", id="rounded"),
            pytest.param(('{"a": 1, "a": 2}',), "the name 'a' twice in one object", id="name-twice"),
            pytest.param(("[" * 300 + "]" * 300,), "nested deeper than 100", id="depth"),
            pytest.param(("--delay", "-1"), "`delay` must be a number of seconds", id="delay-negative"),
            pytest.param(("--delay", "nan"), "`delay` must be a number of seconds", id="delay-nan"),
            pytest.param(("-p", "soon"), "none of urgent, high, normal, low", id="priority"),
            pytest.param(("--id", "a b"), "job id", id="id"),
            pytest.param(("--attempts", "0"), "`attempts`", id="attempts"),
            pytest.param(("-", "--id", "x"), "--id is for one job", id="id-of-a-bulk"),
            pytest.param(('{"a": 1}', "--id-field", "b"), "no field 'b'", id="id-field"),
        ],
    )
    def test_bad_input_is_a_usage_error_and_sends_nothing(
        self, cli: Cli, client: SyncClient, arguments: tuple[str, ...], message: str
    ) -> None:
        cli("submit", "flights", "search", *arguments, code=2)
        assert message in cli.err
        assert client.queues() == []

    def test_a_bulk_of_lines_names_the_bad_ones_and_sends_the_rest(
        self, cli: Cli, client: SyncClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stdin(monkeypatch, '{"id":"a"}\n\nnonsense\n{"id":"b"}\n{"n":1}\n{"id":"a"}\n{"id":18446744073709551616}\n')
        out = cli("submit", "flights", "search", "-", "--id-field", "id", code=1)
        assert out.split() == ["a", "b", "a"]
        assert "refused: standard input line 3: it is not JSON" in cli.err
        assert "refused: standard input line 7: it has the integer 18446744073709551616" in cli.err
        assert "refused: standard input line 5: the payload has no field 'id'" in cli.err
        assert "2 jobs sent to flights, 1 known already, 3 refused" in cli.err
        assert client.stats("flights").waiting == 2

    def test_a_file_of_lines_is_a_bulk(self, cli: Cli, tmp_path: Path) -> None:
        file = tmp_path / "requests.jsonl"
        file.write_text("".join(f'{{"n":{n}}}\n' for n in range(1_200)))
        lines = cli("submit", "flights", "search", f"@{file}", "--json").splitlines()
        assert len(lines) == 1_200
        assert json.loads(lines[0]).keys() == {"id", "queue", "name", "deduplicated"}

    def test_many_bad_lines_are_counted(self, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
        stdin(monkeypatch, "x\n" * 25)
        cli("submit", "flights", "search", "-", code=1)
        assert cli.err.count("it is not JSON") == 20
        assert "refused: 5 more" in cli.err

    def test_wait_prints_the_result(self, cli: Cli, client: SyncClient, with_raw_queue: Callable[..., Any]) -> None:
        client.enqueue("flights", "search", id="trip")

        async def complete(raw_queue: RawQueue) -> None:
            await raw_queue.complete(await raw_queue.claim_one(), {"offers": 3})

        with_raw_queue(complete)
        assert json.loads(cli("submit", "flights", "search", "--id", "trip", "--wait")) == {"offers": 3}
        assert cli.json("submit", "flights", "search", "--id", "trip", "--wait")["state"] == "completed"

    def test_a_known_id_is_reported_when_its_result_is_waited_for(
        self, cli: Cli, client: SyncClient, with_raw_queue: Callable[..., Any]
    ) -> None:
        client.enqueue("flights", "search", {"to": "LIS"}, id="trip")

        async def work(raw_queue: RawQueue) -> None:
            await raw_queue.complete(await raw_queue.claim_one(), {"offers": 3})

        with_raw_queue(work)
        assert json.loads(cli("submit", "flights", "search", '{"to": "OPO"}', "--id", "trip", "--wait")) == {
            "offers": 3
        }
        assert "trip was known already and is completed; nothing was sent" in cli.err
        assert cli.json("submit", "flights", "search", "--id", "trip", "--wait")["deduplicated"] is True

    def test_wait_exits_with_1_if_the_job_died(
        self, cli: Cli, client: SyncClient, with_raw_queue: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("good", "bad"):
            client.enqueue("flights", "search", id=name)

        async def end(raw_queue: RawQueue) -> None:
            await raw_queue.complete(await raw_queue.claim_one(), 5)
            await raw_queue.add_dead_letter(await raw_queue.claim_one())

        with_raw_queue(end)
        assert cli("submit", "flights", "search", "--id", "bad", "--wait", code=1) == ""
        assert "bad is dead: Fatal: no airport 'XYZ'" in cli.err
        assert cli.json("submit", "flights", "search", "--id", "bad", "--wait", code=1)["state"] == "dead"
        stdin(monkeypatch, '{"id":"good"}\n{"id":"bad"}\n')
        cli("submit", "flights", "search", "-", "--id-field", "id", "--wait", code=1)
        assert "1 of 2 jobs completed" in cli.err

    def test_wait_for_a_bulk_counts_what_completed(
        self, cli: Cli, client: SyncClient, with_raw_queue: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("a", "b"):
            client.enqueue("flights", "search", id=name)

        async def end(raw_queue: RawQueue) -> None:
            await raw_queue.complete(await raw_queue.claim_one(), 5)
            await raw_queue.complete(await raw_queue.claim_one(), 6)

        with_raw_queue(end)
        stdin(monkeypatch, '{"id":"a"}\n{"id":"b"}\n')
        cli("submit", "flights", "search", "-", "--id-field", "id", "--wait")
        assert "2 of 2 jobs completed" in cli.err
        stdin(monkeypatch, '{"id":"a"}\n{"id":"b"}\n')
        lines = cli("submit", "flights", "search", "-", "--id-field", "id", "--wait", "--json").splitlines()
        assert {json.loads(line)["result"] for line in lines} == {5, 6}


class TestReading:
    def test_status(self, cli: Cli, client: SyncClient) -> None:
        client.enqueue("flights", "search", {"a": 1}, id="trip", priority="high")
        out = cli("status", "trip")
        assert "state:      waiting" in out
        assert 'data:       {"a":1}' in out
        wire = cli.json("status", "trip")
        assert (wire["id"], wire["priority"], wire["startedAt"]) == ("trip", "high", None)
        cli("status", "nobody", code=3)
        assert "no job nobody is known here" in cli.err

    def test_status_of_a_delayed_job_tells_when_it_is_due(self, cli: Cli, client: SyncClient) -> None:
        client.enqueue("flights", "search", id="later", delay=7_300)
        due = cli.json("status", "later")["dueAt"]
        assert f"dueAt:      {due} (in 2h)" in cli("status", "later")
        client.enqueue("flights", "search", id="now")
        assert "dueAt" not in cli("status", "now")

    def test_status_watch_follows_to_the_end(
        self, cli: Cli, client: SyncClient, with_raw_queue: Callable[..., Any]
    ) -> None:
        client.enqueue("flights", "search", id="trip")
        with_raw_queue(add_dead_letters)
        assert cli("status", "trip", "--watch") == "trip  dead  Fatal: no airport 'Xtrip'\n"
        assert json.loads(cli("status", "trip", "--watch", "--json"))["state"] == "dead"

    def test_jobs(self, cli: Cli, client: SyncClient) -> None:
        client.enqueue_many([{"queue": "flights", "name": "search", "id": f"j{n}"} for n in range(3)])
        lines = cli("jobs", "flights", "-n", "2").splitlines()
        assert [line.split()[0] for line in lines] == ["ID", "j0", "j1"]
        assert "--cursor waiting:2" in cli.err
        page = cli.json("jobs", "flights", "--cursor", "waiting:2")
        assert ([job["id"] for job in page["jobs"]], page["cursor"]) == (["j2"], None)
        assert cli("jobs", "flights", "-s", "dead") == ""
        assert "no dead jobs in flights" in cli.err
        cli("jobs", "flihgts", code=3)
        cli("jobs", "flights", "-s", "lost", code=2)

    def test_no_jobs_that_wait_or_run_says_where_the_others_are(
        self, cli: Cli, client: SyncClient, with_raw_queue: Callable[..., Any]
    ) -> None:
        client.enqueue("flights", "search", id="trip")
        with_raw_queue(add_dead_letters)
        assert cli("jobs", "flights") == ""
        assert "no job waits or runs in flights; list ended jobs with --state completed or --state dead" in cli.err

    def test_stats(self, cli: Cli, client: SyncClient, with_raw_queue: Callable[..., Any]) -> None:
        assert cli("stats") == ""
        assert "no queue has had a job yet" in cli.err
        client.enqueue("flights", "search")
        client.enqueue("hotels", "book", delay=60)
        with_raw_queue(lambda raw_queue: raw_queue.heartbeat(b'{"busy":1,"slots":5,"draining":true,"jobs":[]}'))
        client.pause("hotels")
        header, flights, hotels = (line.split() for line in cli("stats").splitlines())
        assert header[:7] == ["QUEUE", "WAITING", "DELAYED", "SUSPENDED", "ACTIVE", "COMPLETED", "DEAD"]
        assert flights[:2] == ["flights", "1"]
        assert ("1/5" in flights, "draining)" in flights) == (True, True)
        assert (hotels[2], hotels[-1]) == ("1", "paused")
        assert [stats["name"] for stats in cli.json("stats")["stats"]] == ["flights", "hotels"]
        assert cli.json("stats", "hotels")["paused"]
        cli("stats", "hotles", code=3)

    def test_pause_and_resume(self, cli: Cli, client: SyncClient) -> None:
        client.enqueue("flights", "search")
        assert cli("pause", "flights", "--note", "maintenance") == "flights is paused\n"
        assert "maintenance" in (client.stats("flights").paused_note or "")
        assert cli("pause", "flights") == "flights was paused already\n"
        assert cli.json("resume", "flights") == {"queue": "flights", "paused": False, "changed": True}
        assert cli("resume", "flights") == "flights was not paused\n"
        cli("pause", "flihgts", code=3)

    def test_cancel(self, cli: Cli, client: SyncClient, with_raw_queue: Callable[..., Any]) -> None:
        for name in ("a", "b"):
            client.enqueue("flights", "search", id=name)
        with_raw_queue(lambda raw_queue: raw_queue.claim_one())
        assert (
            cli("cancel", "a", "b")
            == "a runs, or has steps to undo: its worker was asked to cancel it\nb is cancelled\n"
        )
        assert cli.json("cancel", "b", code=1) == [{"id": "b", "outcome": "too-late"}]
        cli("cancel", "nobody", code=3)


class TestDead:
    @pytest.fixture
    def letters(self, client: SyncClient, with_raw_queue: Callable[..., Any]) -> None:
        client.enqueue_many([{"queue": "flights", "name": "search", "id": f"j{n}", "data": {"n": n}} for n in range(3)])
        with_raw_queue(add_dead_letters)
        client.enqueue("hotels", "book", id="h")
        with_raw_queue(add_dead_letters, queue="hotels")

    def test_list_groups_by_kind(self, cli: Cli, letters: None) -> None:
        header, first, second = cli("dead", "list").splitlines()
        assert header.split()[:4] == ["QUEUE", "FINGERPRINT", "COUNT", "REASON"]
        assert first.split()[0::2][:2] == ["flights", "3"]
        assert "Fatal: no airport 'Xj2'" in first
        assert second.startswith("hotels")
        (group,) = cli.json("dead", "list", "flights")["groups"]
        assert (group["count"], group["newestId"], group["reason"]) == (3, "j2", "fatal")
        cli("dead", "list", "flihgts", code=3)

    def test_list_of_letters(self, cli: Cli, letters: None) -> None:
        (group,) = cli.json("dead", "list", "flights")["groups"]
        lines = cli("dead", "list", "flights", "--ids", "-n", "2").splitlines()
        assert [line.split()[0] for line in lines] == ["ID", "j2", "j1"]
        cursor = cli.err.rpartition(" ")[2].strip()
        page = cli.json("dead", "list", "flights", "--cursor", cursor, "--fingerprint", group["fingerprint"][:4])
        assert [letter["id"] for letter in page["dead"]] == ["j0"]
        cli("dead", "list", "flights", "--fingerprint", "zzz", code=3)

    def test_show(self, cli: Cli, letters: None) -> None:
        out = cli("dead", "show", "flights", "j1", "j2")
        assert out.count("Traceback: …") == 2
        assert 'data:        {"n":1}' in out
        assert cli.json("dead", "show", "flights")["id"] == "j2"
        assert [letter["id"] for letter in cli.json("dead", "show", "flights", "j0", "j1")] == ["j0", "j1"]
        cli("dead", "show", "flights", "h", code=3)
        assert "died in queue 'hotels'" in cli.err
        cli("dead", "show", "flights", "nobody", code=3)

    def test_replay_all_of_all_queues(self, cli: Cli, client: SyncClient, letters: None) -> None:
        assert cli("dead", "replay", "--all") == "4 jobs sent again\n"
        assert [stats.waiting for stats in client.stats()] == [3, 1]
        assert cli.json("dead", "replay", "--all") == {"replayed": 0, "unknown": [], "live": [], "bare": []}

    def test_replay_of_some(self, cli: Cli, client: SyncClient, letters: None) -> None:
        assert cli("dead", "replay", "flights", "j0", "nobody", code=1) == "1 job sent again\n"
        assert "nobody: not a dead letter of this queue" in cli.err
        cli("dead", "replay", "flights", "nobody", code=3)
        (group,) = cli.json("dead", "list", "flights")["groups"]
        assert cli.json("dead", "replay", "flights", "--fingerprint", group["fingerprint"])["replayed"] == 2

    def test_discard(self, cli: Cli, client: SyncClient, letters: None) -> None:
        assert cli("dead", "discard", "flights", "j0") == "1 dead letter discarded\n"
        cli("dead", "discard", "flights", "j0", code=3)
        assert "1 job had no dead letter in flights" in cli.err
        cli("dead", "discard", "flights", "j0", "j1", code=1)
        assert cli.json("dead", "discard", "--all") == {"discarded": 2}
        assert cli("dead", "list") == ""

    def test_a_kind_that_starts_two_ways_must_be_written_out(
        self,
        cli: Cli,
        client: SyncClient,
        with_raw_queue: Callable[..., Any],
        letters: None,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        async def add_dead_letters(raw_queue: RawQueue) -> None:
            for job in await raw_queue.claim(20):
                await raw_queue.add_dead_letter(job, f"{'abcdefghijklmnopqrst'[int(job.id[1:])]} failed")

        client.enqueue_many([{"queue": "flights", "name": "search", "id": f"k{n}"} for n in range(20)])
        with_raw_queue(add_dead_letters)
        kinds = [group["fingerprint"] for group in cli.json("dead", "list", "flights")["groups"]]
        start = next(kind[0] for kind in kinds if sum(other[0] == kind[0] for other in kinds) > 1)
        cli("dead", "replay", "flights", "--fingerprint", start, code=2)
        assert "ambiguous fingerprint prefix" in cli.err


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from agentqueue.cli.main import main; main()", *arguments]


def on_a_terminal(
    *arguments: str, keys: bytes = b"", until: bytes | None = None, columns: int = 150
) -> tuple[int, str]:
    """Run it on a terminal; with `until`, Ctrl-C is pressed once that was shown. Exit code and all that was shown."""
    mine, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": str(columns), "LINES": "40"}
    process = subprocess.Popen(
        command(*arguments), stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True
    )
    os.close(theirs)
    os.write(mine, keys)
    shown = b""
    while chunk := _read(mine):
        shown += chunk
        if until is not None and until in shown:
            process.send_signal(signal.SIGINT)
            until = None
    os.close(mine)
    return process.wait(30), shown.decode()


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65_536)
    except OSError:  # Linux: the other side is closed
        return b""


class TestOnATerminal:
    def test_tables_have_lines_and_colours(self, client: SyncClient) -> None:
        client.enqueue("flights", "search", {"a": 1}, id="trip")
        code, shown = on_a_terminal("jobs", "flights")
        assert code == 0
        assert "─" in shown
        assert "\x1b[33mwaiting" in shown
        code, shown = on_a_terminal("status", "trip")
        assert "\x1b[1mid" in shown

    def test_stats_on_80_columns_break_no_word(self, client: SyncClient) -> None:
        client.enqueue("client-data", "search")
        code, shown = on_a_terminal("stats", columns=80)
        assert code == 0
        for word in ("queue", "waiting", "delayed", "active", "dead", "workers", "state", "client-data"):
            assert word in shown
        assert "no room for: suspended, completed, per min, slots" in shown
        assert "no room" not in on_a_terminal("stats")[1]

    @pytest.mark.parametrize(
        ("arguments", "columns", "left_out"),
        [
            (("jobs", "client-data", "-s", "dead"), 80, "priority, attempts, age, progress"),
            (("jobs", "client-data", "-s", "dead"), 60, "priority, attempts, age, progress, error"),
            (("dead", "list", "client-data", "--ids"), 80, "reason, attempts, fingerprint"),
            (("dead", "list", "client-data", "--ids"), 60, "job, reason, attempts, died, fingerprint"),
            (("dead", "list"), 80, "reason, newest"),
            (("dead", "list"), 60, "reason, job, newest"),
            (("dead", "list", "client-data"), 60, "queue, reason, newest"),
            (("dead", "list", "client-data"), 40, "queue, count, reason, job, newest"),
        ],
    )
    def test_narrow_terminals_break_no_word(
        self,
        client: SyncClient,
        with_raw_queue: Callable[..., Any],
        arguments: tuple[str, ...],
        columns: int,
        left_out: str,
    ) -> None:
        async def add_dead_letter(raw_queue: RawQueue) -> None:
            await raw_queue.add_dead_letter(await raw_queue.claim_one(), "no airport of that name in any list")

        job_id = client.enqueue("client-data", "rank-quotes").id
        with_raw_queue(add_dead_letter, "client-data")
        _, shown = on_a_terminal(*arguments, columns=columns)
        table, _, caption = re.sub(r"\x1b\[[0-9;]*m", "", shown).partition("no room for: ")
        assert " ".join(caption.split()) == left_out
        assert (job_id in table) == ("--ids" in arguments or "jobs" in arguments)
        assert {"error", "Fatal:", "airport"} <= set(table.split()) or "error" in left_out

    def test_on_40_columns_an_id_is_folded_before_its_state_is_left_out(self, client: SyncClient) -> None:
        job_id = client.enqueue("flights", "search").id
        _, shown = on_a_terminal("jobs", "flights", columns=40)
        assert job_id[:25] in shown
        assert "waiting" in shown
        client.enqueue("flights", "search", id="trip")
        assert "\x1b[33mwaiting" in on_a_terminal("jobs", "flights", columns=40)[1]

    def test_what_users_sent_can_not_move_the_cursor(self, client: SyncClient) -> None:
        client.enqueue("flights", "search", {"a": "\x1b[2J\x1b[31mgone"}, id="trip")
        _, shown = on_a_terminal("status", "trip")
        assert "\x1b[2J" not in shown

    def test_sending_is_said_in_words(self, client: SyncClient) -> None:
        assert "trip sent to flights" in on_a_terminal("submit", "flights", "search", "--id", "trip")[1]
        assert "trip was known already" in on_a_terminal("submit", "flights", "search", "--id", "trip")[1]

    def test_a_bulk_has_a_progress_bar(self, client: SyncClient, tmp_path: Path) -> None:
        file = tmp_path / "a.jsonl"
        file.write_text("".join(f'{{"n":{n}}}\n' for n in range(3_000)))
        code, shown = on_a_terminal("submit", "flights", "search", f"@{file}")
        assert code == 0
        assert "sending" in shown
        assert "3,000 jobs sent to flights" in shown

    def test_stats_watch_is_a_live_view_until_ctrl_c(self, client: SyncClient) -> None:
        client.enqueue("flights", "search")
        code, shown = on_a_terminal("stats", "--watch", "--interval", "0.1", until=b"flights")
        assert code == 130
        assert "Traceback" not in shown

    def test_status_watch_and_wait_show_the_end(self, client: SyncClient, with_raw_queue: Callable[..., Any]) -> None:
        client.enqueue("flights", "search", id="trip")

        async def run_it(raw_queue: RawQueue) -> None:
            job = await raw_queue.claim_one()
            await raw_queue.note_progress(job, 40, "looking")

        with_raw_queue(run_it)
        code, shown = on_a_terminal("status", "trip", "--watch", until=b"40% looking")
        assert code == 130
        client.enqueue("flights", "search", id="dies")
        with_raw_queue(add_dead_letters, worker="other")
        code, shown = on_a_terminal("submit", "flights", "search", "--id", "dies", "--wait")
        assert code == 1
        assert "dies is dead: Fatal: no airport 'Xdies'" in shown

    @pytest.mark.parametrize(("keys", "left"), [(b"n\n", 1), (b"y\n", 0)])
    def test_discarding_all_is_asked_first(
        self, client: SyncClient, with_raw_queue: Callable[..., Any], keys: bytes, left: int
    ) -> None:
        client.enqueue("flights", "search", id="trip")
        with_raw_queue(add_dead_letters)
        _, shown = on_a_terminal("dead", "discard", "--all", keys=keys)
        assert "Discard all dead letters of all queues?" in shown
        assert client.stats("flights").dead == left


class TestAsAProcess:
    def test_a_reader_that_goes_away_is_no_error(self, client: SyncClient) -> None:
        client.enqueue_many([{"queue": "flights", "name": "search", "data": "x" * 1_000} for _ in range(1_000)])
        process = subprocess.Popen(
            command("jobs", "flights", "-n", "1000", "--json"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert process.stdout is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
        process.stderr.close()
        process.wait(30)

    @pytest.mark.parametrize("arguments", [("stats",), ("stats", "--json"), ("stats", "--watch"), ("jobs", "flights")])
    def test_a_full_disk_is_told_in_a_line(self, client: SyncClient, arguments: tuple[str, ...]) -> None:
        client.enqueue("flights", "search")
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(command(*arguments), stdout=full, stderr=subprocess.PIPE, check=False, timeout=30)
        assert (done.returncode, done.stderr.decode()) == (
            1,
            "error: the output can't be written: No space left on device; make room there, or send it elsewhere\n",
        )

    def test_a_reader_that_reads_nothing_is_no_error(self, client: SyncClient) -> None:
        client.enqueue("flights", "search")
        mine, theirs = os.pipe()
        os.close(mine)
        done = subprocess.run(command("stats"), stdout=theirs, stderr=subprocess.PIPE, check=False, timeout=30)
        os.close(theirs)
        assert done.stderr == b""

    @pytest.mark.parametrize(("closed", "code"), [(">&-", 0), (">&- 2>&-", 0), ("--limit x 2>&-", 2)])
    def test_outputs_may_be_closed(self, client: SyncClient, closed: str, code: int) -> None:
        client.enqueue("flights", "search")
        line = f"{shlex.join(command('jobs', 'flights'))} {closed}"
        done = subprocess.run(["sh", "-c", line], capture_output=True, check=False, timeout=30)
        assert (done.returncode, done.stdout, done.stderr) == (code, b"", b"")

    def test_letters_that_the_output_can_not_say_are_escaped(self, client: SyncClient) -> None:
        sent = {"to": "Zürich", "mood": "\N{GRINNING FACE}"}
        client.enqueue("flights", "search", sent, id="trip")
        environment = os.environ | {"PYTHONIOENCODING": "ascii"}
        shown, raw = (
            subprocess.run(command("status", "trip", *more), env=environment, capture_output=True, check=False).stdout
            for more in ((), ("--json",))
        )
        assert rb'{"to":"Z\xfcrich","mood":"\U0001f600"}' in shown
        assert json.loads(raw)["data"] == sent

    def test_watching_in_a_pipe_prints_a_line_per_look(self, client: SyncClient) -> None:
        client.enqueue("flights", "search")
        process = subprocess.Popen(
            command("stats", "flights", "--watch", "--interval", "0.1", "--json"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdout is not None
        assert [json.loads(process.stdout.readline())["waiting"] for _ in range(2)] == [1, 1]
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
        assert process.returncode == 130
        assert b"Traceback" not in err

    def test_commands_complete_in_a_shell(self) -> None:
        asked = {"_AGENTQUEUE_COMPLETE": "complete_bash", "COMP_WORDS": "agentqueue st", "COMP_CWORD": "1"}
        done = subprocess.run(
            command(), env=os.environ | asked, capture_output=True, text=True, check=False, timeout=30
        )
        assert done.stdout.split() == ["status", "stream-token", "stats"]

    def test_schedules_are_listed_run_paused_and_resumed(self, cli: Cli, with_raw_queue: Callable[..., Any]) -> None:
        async def put(raw_queue: RawQueue, *, suspend: bool = False) -> None:
            nightly = Schedule("nightly", cron="0 3 * * *", timezone="Europe/Berlin", job="report", suspend=suspend)
            await Schedules(raw_queue.engine.server).put("flights", source="resource", schedules=[nightly])

        assert "there are no schedules" in cli("schedules", "list") + cli.err
        with_raw_queue(put)
        for word in ("nightly", "0 3 * * * Europe/Berlin", "report", "in "):
            assert word in cli("schedules", "list")
        (listed,) = cli.json("schedules", "list", "flights")["schedules"]
        assert (listed["name"], listed["missed"], listed["last"]) == ("nightly", "one", None)
        job_id = cli("schedules", "run", "flights", "nightly").strip()
        assert cli.json("status", job_id)["schedule"] == "nightly"
        assert cli.json("schedules", "run", "flights", "nightly")["schedule"] == "nightly"
        assert cli("schedules", "pause", "flights", "nightly", "--note", "no flights") == "nightly is paused\n"
        assert "was paused already" in cli("schedules", "pause", "flights", "nightly")
        assert "no flights" in cli.json("schedules", "list", "flights")["schedules"][0]["paused"]
        assert "paused" in cli("schedules", "list", "flights")
        assert cli("schedules", "resume", "flights", "nightly") == "nightly is resumed\n"
        with_raw_queue(partial(put, suspend=True))
        out = cli("schedules", "resume", "flights", "nightly")
        assert "the resource suspends it: write suspend: false there" in out
        assert cli.json("schedules", "resume", "flights", "nightly")["suspended"] is True
        cli("schedules", "run", "flights", "weekly", code=3)
        assert "queue 'flights' has no schedule 'weekly'; it has nightly" in cli.err

    def test_a_server_that_is_away_is_1(self, cli: Cli) -> None:
        cli("stats", "--redis", "redis://127.0.0.1:1", code=1)
        assert "Redis at redis://127.0.0.1:1 does not answer" in cli.err
        cli("stats", "--redis", "http://x", code=2)
