"""A server whose clock a test can set, by Debian's libfaketime."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agentqueue.clock import now_ms
from tests.support.debian import ensure_packages
from tests.support.servers import RunningServer, run_server

FOLDERS = ("/usr/lib/x86_64-linux-gnu/faketime", "/usr/lib/aarch64-linux-gnu/faketime")


@dataclass(frozen=True)
class Clock:
    """Moved by writing its offset to a file that the library reads whenever the server asks for the time."""

    file: Path
    server: RunningServer

    def jump(self, seconds: int) -> None:
        """From now on the server's clock is that far off the machine's."""
        with self.server.client() as client:
            deadline = time.monotonic() + 20
            while round(client.time()[0] - now_ms() / 1000) != seconds:
                assert time.monotonic() < deadline, f"the server's clock did not follow to {seconds:+d} s"
                _write(self.file, seconds)
                time.sleep(0.02)


@contextlib.contextmanager
def run_server_with_clock(kind: str, folder: Path, **config: str) -> Iterator[tuple[RunningServer, Clock]]:
    """A server, and its clock. Only the time of day is moved, as by NTP; what the server measures goes on."""
    file = folder / "offset"
    _write(file, 0)
    environment = {
        # The C library comes again behind it: its malloc instead of jemalloc's, which asks for the time too early.
        "LD_PRELOAD": f"{_library()}:libc.so.6",
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_NO_CACHE": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }
    with run_server(kind, config, environment=environment) as server:
        yield server, Clock(file, server)


def _write(file: Path, seconds: int) -> None:
    beside = file.with_suffix(".new")
    beside.write_text(f"{seconds:+d}\n")
    beside.rename(file)


def _library() -> str:
    ensure_packages("libfaketime")
    for folder in FOLDERS:
        path = Path(folder) / "libfaketime.so.1"
        if path.exists():
            return str(path)
    raise RuntimeError(f"libfaketime is installed, but in none of {', '.join(FOLDERS)}")
