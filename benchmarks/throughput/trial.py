"""One side on one fresh server: its processes, the journals they write, and the counters of the server."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Final, Self

from benchmarks.throughput.installs import ROOT, Installed
from benchmarks.throughput.load import ENDS, RECORD, Load, read_journal
from redis import Redis

from agentqueue.local.server import AppendFsync, EmbeddedServer

START_S: Final = 60.0
"""Seconds from the start of a worker to its first job."""
END_S: Final = 20.0
"""Seconds from SIGTERM to SIGKILL."""
POLL_S: Final = 0.005
PROBES: Final = -1_000_000
"""Numbers from here up to -1 are jobs that find out whether a worker runs; no figure counts them."""


class Slow(RuntimeError):
    """A side did not get there in the time that a run has."""


@dataclass(frozen=True, slots=True)
class Counters:
    """Totals of the server and of the workers' processors at one moment."""

    commands: int = 0
    scripts: int = 0
    network_bytes: int = 0
    redis_s: float = 0.0
    memory_bytes: int = 0
    worker_s: float = 0.0
    starts: int = 0

    def since(self, before: "Counters") -> "Counters":
        """Return the differences to an earlier moment."""
        mine, theirs = asdict(self), asdict(before)
        return Counters(**{name: mine[name] - theirs[name] for name in mine})


@dataclass(frozen=True, slots=True)
class Sent:
    """Jobs that a producer sent, the seconds that took, and the moment before each send in a paced load."""

    sent: int
    seconds: float
    moments: Mapping[int, int]


@dataclass(slots=True)
class Worker:
    """One worker process in a process group of its own."""

    process: "subprocess.Popen[bytes]"
    journal: Path
    began_ns: int
    stopped: bool = False

    def starts(self) -> list[tuple[int, int]]:
        """Return the job numbers and moments of the starts so far, probes left out."""
        return [record for record in read_journal(self.journal) if record[0] >= 0]

    def ends(self) -> set[int]:
        """Return the numbers of the jobs with a sleep that have run to their end, probes left out."""
        return {n for n, _ in self._end_records() if n >= 0}

    def end_moments(self) -> list[int]:
        """Return when jobs ended, in nanoseconds of the monotonic clock."""
        return [at for n, at in self._end_records() if n >= 0]

    def _end_records(self) -> list[tuple[int, int]]:
        return read_journal(self.journal.with_name(self.journal.name + ENDS))

    def processor_s(self) -> float:
        """Return the processor time of all processes of the group so far, in seconds."""
        return sum(ticks for _, ticks in _group(self.process.pid)) / os.sysconf("SC_CLK_TCK")

    def resident_bytes(self) -> int:
        """Return the resident memory of all processes of the group."""
        pages = [
            int((Path("/proc") / str(pid) / "statm").read_text().split()[1]) for pid, _ in _group(self.process.pid)
        ]
        return sum(pages) * os.sysconf("SC_PAGE_SIZE")

    def kill(self) -> None:
        """Kill the whole group, as the end of a machine would."""
        self.stopped = True
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def end(self) -> float:
        """Send SIGTERM to the first process and return the seconds until it has ended; END_S is the most."""
        began = time.monotonic()
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(END_S)
        seconds = time.monotonic() - began
        self.kill()
        return seconds


class Trial:
    """A fresh server and the processes of one side. `with Trial(...) as trial:` ends all of them.

    Attributes:
        workers: worker processes started so far.
        sent: jobs sent so far, probes left out.

    Args:
        installed: the side.
        needs: features that the load uses, such as `priority`.
        network_ms: delay of the network between the side and the server, in milliseconds.
        fsync: setting `appendfsync` of the server.
    """

    def __init__(
        self,
        installed: Installed,
        *,
        needs: Sequence[str] = (),
        network_ms: float = 0.0,
        fsync: AppendFsync = "everysec",
    ) -> None:
        self.installed = installed
        self._needs = needs
        self._network_ms = network_ms
        self._fsync = fsync
        self.workers: list[Worker] = []
        self.sent = 0
        self._database_url = ""
        self._resources = contextlib.ExitStack()
        self._probe = PROBES

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as resources:
            memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # where a record costs the least
            self.folder = Path(resources.enter_context(tempfile.TemporaryDirectory(dir=memory)))
            data = resources.enter_context(tempfile.TemporaryDirectory())
            self._errors: IO[bytes] = resources.enter_context((self.folder / "errors").open("w+b"))
            server = resources.enter_context(EmbeddedServer(Path(data) / "valkey", appendfsync=self._fsync))
            self.redis = resources.enter_context(Redis.from_url(server.url, decode_responses=True))
            port = resources.enter_context(_network(server.port, self._network_ms)) if self._network_ms else server.port
            self.url = server.url.replace(f":{server.port}/", f":{port}/")
            self._database_url = resources.enter_context(self._database())
            self._resources = resources.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    def environment(self, **own: str) -> dict[str, str]:
        """Return the environment of a side's process."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AGENTQUEUE_", "REDIS_"))}
        ours = {"BENCH_URL": self.url, "BENCH_NEEDS": " ".join(self._needs), "PYTHONPATH": str(ROOT)}
        ours |= {"BENCH_DATABASE": self._database_url, "BENCH_FSYNC": self._fsync}
        return kept | ours | dict(self.installed.environment) | own

    @contextlib.contextmanager
    def _database(self) -> Iterator[str]:
        """Start the database that the side works on, and yield its URL; "" for a side on Redis."""
        with tempfile.TemporaryDirectory() as folder:
            Path(folder).chmod(0o755)  # the database may run as another user
            command = self.installed.database(Path(folder))
            if not command:
                yield ""
                return
            pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self._errors}
            with subprocess.Popen(command, cwd=ROOT, env=self.environment(), text=True, **pipes) as database:
                try:
                    assert database.stdout is not None
                    url = database.stdout.readline().strip()
                    if not url:
                        raise RuntimeError(
                            f"the database of {self.installed.side.title} did not start: {self._last_errors()}"
                        )
                    yield url
                finally:
                    assert database.stdin is not None
                    database.stdin.close()
                    database.wait(END_S)

    def enqueue(self, load: Load) -> Sent:
        """Send a load in a process of its own and wait for its end.

        Raises:
            Slow: the producer did not end.
            RuntimeError: the producer failed; the message has what it printed last.
        """
        journal = self.folder / f"sent-{load.first}"
        try:
            done = subprocess.run(
                self.installed.producer(),
                cwd=ROOT,
                env=self.environment(BENCH_LOAD=json.dumps(asdict(load)), BENCH_SENT=str(journal)),
                stdout=subprocess.PIPE,
                stderr=self._errors,
                timeout=load.limit + START_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise Slow(f"the producer did not end {START_S:.0f} s after its limit") from None
        if done.returncode:
            raise RuntimeError(f"the producer failed: {self._last_errors()}")
        found = json.loads(done.stdout.splitlines()[-1])
        self.sent += int(found["sent"]) if load.first >= 0 else 0
        return Sent(int(found["sent"]), float(found["seconds"]), dict(read_journal(journal)))

    def start_worker(self, concurrency: int) -> Worker:
        """Start one worker process."""
        journal = self.folder / f"starts-{len(self.workers)}"
        environment = self.environment(BENCH_CONCURRENCY=str(concurrency), BENCH_JOURNAL=str(journal))
        environment |= self.installed.worker_variables(self.url, concurrency)
        command = self.installed.worker(self.url, concurrency)
        began_ns = time.monotonic_ns()
        worker = Worker(self._spawn(command, environment), journal, began_ns)
        self.workers.append(worker)
        self._resources.callback(worker.kill)
        if "delay" in self._needs and len(self.workers) == 1 and (scheduler := self.installed.scheduler()):
            helper = self._spawn(scheduler, environment)
            self._resources.callback(Worker(helper, journal, began_ns).kill)
        return worker

    def _spawn(self, command: Sequence[str], environment: Mapping[str, str]) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=self._errors, stderr=self._errors, start_new_session=True
        )

    def wait_until_ready(self, concurrency: int) -> None:
        """Send probes until every worker has run one."""
        deadline = time.monotonic() + START_S
        while not all(worker.journal.exists() for worker in self.workers):
            if time.monotonic() > deadline:
                raise Slow(f"not every worker runs jobs after {START_S:.0f} s: {self._last_errors()}")
            load = Load(self._probe, concurrency * len(self.workers), seconds=0.05 if len(self.workers) > 1 else 0.0)
            self._probe += self.enqueue(load).sent
            self.wait_for(lambda: self.starts() >= self._probe - PROBES, START_S)
        time.sleep(self.installed.side.settle_s)

    def starts(self) -> int:
        """Return the number of starts so far, probes included; cheap."""
        return sum(it.journal.stat().st_size // RECORD.size for it in self.workers if it.journal.exists())

    def wait_for_starts(self, count: int, seconds: float) -> bool:
        """Wait until `count` jobs have started; return False if the time is over before."""
        try:
            self.wait_for(lambda: self.starts() >= count, seconds)
        except Slow:
            return False
        return True

    def wait_for(self, condition: Callable[[], bool], seconds: float) -> None:
        """Wait for a condition.

        Raises:
            Slow: the time is over.
            RuntimeError: a worker has ended.
        """
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise Slow(f"not done after {seconds:.0f} s: {self._last_errors()}")
            for worker in self.workers:
                if not worker.stopped and worker.process.poll() is not None:
                    raise RuntimeError(f"a worker ended with {worker.process.returncode}: {self._last_errors()}")
            time.sleep(POLL_S)

    def counters(self) -> Counters:
        """Return the totals of now."""
        info = self.redis.info("everything")
        calls = {name: int(value["calls"]) for name, value in info.items() if name.startswith("cmdstat_")}
        return Counters(
            commands=sum(calls.values()),
            scripts=calls.get("cmdstat_evalsha", 0),
            network_bytes=int(info["total_net_input_bytes"]) + int(info["total_net_output_bytes"]),
            redis_s=float(info["used_cpu_user"]) + float(info["used_cpu_sys"]),
            memory_bytes=int(info["used_memory"]),
            worker_s=sum(worker.processor_s() for worker in self.workers),
            starts=self.starts(),
        )

    def _last_errors(self) -> str:
        self._errors.flush()
        lines = (self.folder / "errors").read_text(errors="replace").splitlines()
        return " | ".join(line.strip() for line in lines[-3:] if line.strip())[-500:] or "it printed nothing"


@contextlib.contextmanager
def _network(port: int, delay_ms: float) -> Iterator[int]:
    """Start the proxy; its port."""
    command = [sys.executable, "-m", "benchmarks.throughput.proxy", str(port), str(delay_ms)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as proxy:
        try:
            assert proxy.stdout is not None
            yield int(proxy.stdout.readline())
        finally:
            proxy.kill()


def _group(leader: int) -> Iterator[tuple[int, int]]:
    """Yield the processes of a group with their processor time in clock ticks, ended children included."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(") ")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(fields[2]) == leader:
                yield int(entry.name), sum(map(int, fields[11:15]))


def server_version() -> str:
    """Return the name and version of the server that every trial starts."""
    with EmbeddedServer() as server, Redis.from_url(server.url, decode_responses=True) as client:
        info = client.info("server")
    return f"Valkey {info['valkey_version']}" if "valkey_version" in info else f"Redis {info['redis_version']}"
