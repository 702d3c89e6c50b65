"""A kubectl of the test's own, first on PATH: it answers out of a folder, and forwards ports by itself."""

import json
import stat
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROGRAM = '''#!{python}
"""Stands in for kubectl. What it was called with is in calls.jsonl; `RESOURCE/NAMESPACE/NAME.json` are its objects."""
import json, os, signal, socket, sys, threading, time
from pathlib import Path

folder = Path({folder!r})
words = sys.argv[1:]
with (folder / "calls.jsonl").open("a") as calls:
    calls.write(json.dumps({{"words": words, "pid": os.getpid()}}) + "\\n")


def option(name, default=None):
    return words[words.index(name) + 1] if name in words else default


namespace = option("--namespace", "current")


def fail(text):
    print(text, file=sys.stderr)
    sys.exit(1)


def wait_for_forward():
    """Until a port-forward was started, for a test of what happens at once."""
    deadline = time.monotonic() + 20
    while '"port-forward"' not in (folder / "calls.jsonl").read_text():
        if time.monotonic() > deadline:
            fail("nobody forwards a port")
        time.sleep(0.01)


def get(resource, name=None):
    if resource == "secret" and (folder / "together").exists():
        wait_for_forward()
    if (folder / resource / "fails").exists():
        fail((folder / resource / "fails").read_text())
    if name is None:
        found = sorted((folder / resource / namespace).glob("*.json"))
        return {{"items": [json.loads(path.read_text()) for path in found]}}
    path = folder / resource / namespace / (name + ".json")
    if not path.exists():
        fail('Error from server (NotFound): ' + resource + ' "' + name + '" not found')
    return json.loads(path.read_text())


def pump(source, target):
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def forward(target, ports):
    local, _, remote = ports.rpartition(":")
    backend = folder / "backend"
    if not backend.exists():
        fail('Error from server (NotFound): services "' + target.partition("/")[2] + '" not found')
    listener = socket.create_server(("127.0.0.1", int(local or 0)))
    port = listener.getsockname()[1]
    print("Forwarding from 127.0.0.1:%d -> %s" % (port, remote), flush=True)
    while True:
        here, _ = listener.accept()
        print("Handling connection for %d" % port, flush=True)
        there = socket.create_connection(("127.0.0.1", int(backend.read_text())))
        for pair in ((here, there), (there, here)):
            threading.Thread(target=pump, args=pair, daemon=True).start()


verb = next(word for word in words if word in ("get", "port-forward"))
rest = words[words.index(verb) + 1 :]
if verb == "get":
    names = [word for word in rest[:2] if not word.startswith("-")]
    print(json.dumps(get(*names)))
else:
    forward(rest[-2], rest[-1])
'''


@dataclass(frozen=True)
class FakeKubectl:
    """What it knows, and what it was asked."""

    folder: Path

    def install(self) -> Path:
        """The folder to put first on PATH."""
        place = self.folder / "bin"
        place.mkdir(parents=True)
        program = place / "kubectl"
        program.write_text(PROGRAM.format(python=sys.executable, folder=str(self.folder)))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        return place

    def put(self, resource: str, namespace: str, name: str, body: dict[str, Any]) -> None:
        """An object to get."""
        place = self.folder / resource / namespace
        place.mkdir(parents=True, exist_ok=True)
        metadata = {"metadata": {"name": name, "namespace": namespace}}
        (place / f"{name}.json").write_text(json.dumps(metadata | body))

    def refuse(self, resource: str, said: str) -> None:
        """From now on it has nothing but these words for a kind."""
        (self.folder / resource).mkdir(exist_ok=True)
        (self.folder / resource / "fails").write_text(said)

    def serve(self, port: int) -> None:
        """Where forwarded connections end."""
        (self.folder / "backend").write_text(str(port))

    def expect_all_at_once(self) -> None:
        """From now on no Secret is there before a port is being forwarded."""
        (self.folder / "together").touch()

    def calls(self, verb: str) -> list[list[str]]:
        """What it was called with, of that verb."""
        return [call["words"] for call in self._calls() if verb in call["words"]]

    def pids(self, verb: str) -> list[int]:
        """Of the calls of that verb."""
        return [int(call["pid"]) for call in self._calls() if verb in call["words"]]

    def _calls(self) -> list[dict[str, Any]]:
        path = self.folder / "calls.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
