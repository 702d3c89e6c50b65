"""A real browser, driven over the Chrome DevTools Protocol's pipe: https://chromedevtools.github.io/devtools-protocol/."""

import contextlib
import itertools
import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from agentqueue.clock import monotonic
from tests.support.debian import ensure_packages

PATIENCE = 60.0
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-pipe")


class Browser:
    """One page. What its scripts threw is in `exceptions`."""

    def __init__(self, to: IO[bytes], of: IO[bytes]) -> None:
        self._to, self._of = to, of
        self._numbers = itertools.count(1)
        self._session: str | None = None
        self.exceptions: list[str] = []
        target = self._send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._send("Runtime.enable")
        self._send("Page.enable")

    def _send(self, method: str, **params: Any) -> Any:
        number = next(self._numbers)
        session = {} if self._session is None else {"sessionId": self._session}
        self._to.write(json.dumps({"id": number, "method": method, "params": params, **session}).encode() + b"\0")
        while True:
            message = json.loads(self._message())
            if message.get("method") == "Runtime.exceptionThrown":
                self.exceptions.append(json.dumps(message["params"]))
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]

    def _message(self) -> bytes:
        out = bytearray()
        while (byte := self._of.read(1)) != b"\0":
            assert byte, "the browser has ended"
            out += byte
        return bytes(out)

    def open(self, url: str) -> None:
        """Go to an address."""
        self._send("Page.navigate", url=url)

    def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        return self._send("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def until(self, script: str) -> Any:
        """The expression's first true value."""
        ends = monotonic() + PATIENCE
        while not (value := self.run(script)):
            assert monotonic() < ends, f"{script} did not hold; the page shows: {self.run('document.body.innerText')}"
        return value

    def until_shown(self, *texts: str) -> None:
        """Wait until the page shows all of these texts."""
        self.until(f"{json.dumps(texts)}.every((text) => document.body.innerText.includes(text))")


@contextlib.contextmanager
def browsing(folder: Path) -> Iterator[Browser]:
    """A browser with a profile of its own in the folder."""
    if shutil.which("chromium") is None:
        ensure_packages("chromium")
    theirs, ours = os.pipe()
    mine, back = os.pipe()
    command = shlex.join(["chromium", *FLAGS, f"--user-data-dir={folder / 'profile'}"])
    process = subprocess.Popen(
        ["bash", "-c", f"exec {command} 3<&{theirs} 4>&{back}"],
        pass_fds=(theirs, back),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    os.close(theirs)
    os.close(back)
    try:
        with os.fdopen(ours, "wb", buffering=0) as to, os.fdopen(mine, "rb") as of:
            yield Browser(to, of)
    finally:
        process.kill()
        process.wait(20)
