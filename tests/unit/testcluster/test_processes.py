"""What runs on this machine, told from what has ended."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.cluster import own
from tests.support.cluster.processes import Process, identity
from tests.support.cluster.shell import until

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")

HEADLESS = """
import ctypes, threading
threading.Thread(target=threading.Event().wait).start()
ctypes.CDLL(None).pthread_exit(None)
"""
"""Its first thread ends, another one stays."""


def first_thread_has_ended(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def test_a_process_whose_first_thread_has_ended_is_alive_until_the_others_have() -> None:
    with subprocess.Popen([sys.executable, "-c", HEADLESS]) as process:
        until(lambda: first_thread_has_ended(process.pid), "the end of its first thread")
        assert identity(process.pid) is not None
        process.kill()
        until(lambda: identity(process.pid) is None, "the end of the process, which nobody has waited for")


def test_what_started_a_cluster_s_parts_is_told_from_what_started_those_of_one_beside_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours = [
        Process(1, ("unshare", "--net", "machine", "/state/cluster", "9")),
        Process(2, ("nsenter", "etcd", "--data-dir=/state/cluster/etcd")),
    ]
    others = [
        Process(3, ("unshare", "--net", "machine", "/state/cluster-71", "8")),
        Process(4, ("nsenter", "etcd", "--data-dir=/state/cluster-71/etcd")),
        Process(5, ("tail", "/state/cluster/logs/etcd.log")),
    ]
    monkeypatch.setattr(own, "processes", lambda: [*ours, *others])
    assert own._starters(Path("/state/cluster")) == ours
