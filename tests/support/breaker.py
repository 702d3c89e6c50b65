"""A proxy between clients and a Redis server that cuts one connection at one command, in one of four ways."""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from types import TracebackType
from typing import Any, Self

import hiredis


class Cut(Enum):
    """Where the connection breaks."""

    BEFORE = auto()
    """The server never sees the command."""
    WITHIN = auto()
    """The server sees half of it."""
    AFTER = auto()
    """The server gets the command, and nobody waits for its answer: the next connection may overtake it."""
    ANSWERED = auto()
    """The server has carried it out and answered; the answer is lost."""


@dataclass
class Breaker:
    """Started by `async with`. It counts commands over all connections, handshakes too, from 1."""

    port: int
    """The server's, on this machine."""
    seen: list[bytes] = field(default_factory=list)
    """The name of each command that came."""
    cut: tuple[int, Cut] | None = None
    choose: Callable[[list[Any]], Cut | None] | None = None
    """Says of each command how to cut it, in place of `cut`."""
    url: str = ""
    _pipes: "set[_Pipe]" = field(default_factory=set)
    _tasks: "set[asyncio.Task[None]]" = field(default_factory=set)

    @property
    def is_spent(self) -> bool:
        """Whether the cut has happened."""
        return self.cut is not None and len(self.seen) >= self.cut[0]

    def arm(self, number: int, cut: Cut) -> None:
        """Cut at the `number`th command from now on."""
        self.seen.clear()
        self.cut = (number, cut)

    def next_cut(self, command: list[Any]) -> Cut | None:
        """Note the command; how to cut it, if it is the one."""
        self.seen.append(command[0])
        if self.choose is not None:
            return self.choose(command)
        return self.cut[1] if self.cut is not None and len(self.seen) == self.cut[0] else None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for pipe in list(self._pipes):
            pipe.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            writer.close()
            return
        pipe = _Pipe(self, reader, writer, server_reader, server_writer)
        task = asyncio.current_task()
        assert task is not None
        self._pipes.add(pipe)
        self._tasks.add(task)
        try:
            await pipe.run()
        finally:
            self._pipes.discard(pipe)
            self._tasks.discard(task)


@dataclass(eq=False)
class _Pipe:
    """One connection and its other half."""

    breaker: Breaker
    from_client: asyncio.StreamReader
    to_client: asyncio.StreamWriter
    from_server: asyncio.StreamReader
    to_server: asyncio.StreamWriter
    asked: int = 0
    answered: int = 0
    lose_answer: int | None = None
    """The answer that the client does not get, counted from 1."""

    async def run(self) -> None:
        """Until either side ends, or the cut comes."""
        halves = [asyncio.ensure_future(self._requests()), asyncio.ensure_future(self._answers())]
        try:
            await asyncio.wait(halves, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.close()
            for half in halves:
                half.cancel()
            await asyncio.gather(*halves, return_exceptions=True)

    def close(self) -> None:
        """Break both halves."""
        for writer in (self.to_client, self.to_server):
            writer.close()

    async def _requests(self) -> None:
        parser = hiredis.Reader()
        while chunk := await _read(self.from_client):
            parser.feed(chunk)
            while (command := parser.gets()) is not False:
                if not await self._forward(command):
                    return

    async def _forward(self, command: list[Any]) -> bool:
        """Send one command on. False: the connection is cut."""
        raw = hiredis.pack_command(tuple(command))
        cut = self.breaker.next_cut(command)
        self.asked += 1
        if cut is Cut.BEFORE:
            return False
        if cut is Cut.ANSWERED:
            self.lose_answer = self.asked
        self.to_server.write(raw[: len(raw) // 2] if cut is Cut.WITHIN else raw)
        with contextlib.suppress(ConnectionError):
            await self.to_server.drain()
        return cut not in (Cut.WITHIN, Cut.AFTER)

    async def _answers(self) -> None:
        parser = hiredis.Reader()
        while chunk := await _read(self.from_server):
            parser.feed(chunk)
            while parser.gets() is not False:
                self.answered += 1
            if self.lose_answer is not None and self.answered >= self.lose_answer:
                return
            self.to_client.write(chunk)


async def _read(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read(65_536)
    except ConnectionError:
        return b""
