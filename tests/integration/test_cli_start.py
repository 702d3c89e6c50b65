"""The command while it is still starting."""

import signal
import subprocess
import sys
from pathlib import Path

SLOW = """
import sys, time
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "agentqueue.cli.dead_letters":
            print("importing", flush=True)
            time.sleep(60)
sys.meta_path.insert(0, Finder())
from agentqueue.cli.entrypoint import main
main()
"""


def test_ctrl_c_while_it_imports_ends_it_in_silence(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    with subprocess.Popen(
        [sys.executable, "slow.py", "queues"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "importing\n"
            process.send_signal(signal.SIGINT)
            assert process.wait(10) == -signal.SIGINT, "which a shell shows as 130"
            assert process.stdout.read() == ""
        finally:
            process.kill()
