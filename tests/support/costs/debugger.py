"""Count the lines of Lua that scripts execute, with the debugger of the server itself.

Redis and Valkey have no counter for the work inside a script. Their debugger (SCRIPT DEBUG) runs a script on the real
server with the real keys and stops before each line, so the number of stops is the number of executed lines. A Lua
interpreter outside the server would need its own copies of `redis`, `cjson` and `cmsgpack`.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import hiredis

from agentqueue.store import Server
from agentqueue.store.scripts import Script, queue_keys

STEP = b"*1\r\n$4\r\nstep\r\n"
"""Command of the debugger: execute one line. It accepts one command at a time."""
END = b"<endsession>"
"""The debugger's last line, before the reply of the script."""


class LineCountingServer(Server):
    """A server whose scripts run in the debugger. They do what they always do, 0.3 ms a line.

    Attributes:
        lines: lines that have been executed so far.
    """

    lines = 0

    async def run(self, script: Script, queue: str, args: Sequence[Any]) -> Any:
        options = self.redis.connection_pool.connection_kwargs
        reader, writer = await asyncio.open_connection(options["host"], options["port"])
        replies = hiredis.Reader()
        keys = queue_keys(queue)

        async def answer() -> Any:
            while (found := replies.gets()) is False:
                replies.feed(await reader.read(1 << 16))
            return found

        try:
            # SYNC runs the script in the server, whose writes stay, and not in a fork.
            writer.write(_pack("SCRIPT", "DEBUG", "SYNC"))
            assert (allowed := await answer()) == b"OK", allowed
            writer.write(_pack("EVAL", script.source, len(keys), *keys, *args))
            while True:
                answered = await answer()
                assert not isinstance(answered, hiredis.ReplyError), answered
                if END in answered:
                    break
                self.lines += 1
                writer.write(STEP)
            reply = await answer()
            assert not isinstance(reply, hiredis.ReplyError), reply
            return reply
        finally:
            writer.close()

    async def run_dedicated(self, script: Script, queue: str, args: Sequence[Any]) -> Any:
        return await self.run(script, queue, args)


def _pack(*words: bytes | str | float) -> bytes:
    packed: bytes = cast("Any", hiredis).pack_command(words)  # its stub says that it takes one word
    return packed
