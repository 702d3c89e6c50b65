"""A network with a delay on loopback: `python -m benchmarks.throughput.proxy PORT MILLISECONDS`.

Listens on a free port, which it prints, and passes the replies of the server at PORT on after the delay. Replies in
flight travel side by side, as on a real network: the delay adds to each reply and does not limit a rate.
"""

import asyncio
import selectors
import sys
from typing import Final

HOST: Final = "127.0.0.1"
CHUNK: Final = 1 << 16


async def serve(port: int, delay: float) -> None:
    """Pass connections on until the process ends."""

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, questions = await asyncio.open_connection(HOST, port)
        await asyncio.gather(_pass_on(reader, questions, 0.0), _pass_on(answers, writer, delay))

    listener = await asyncio.start_server(accept, HOST, 0)
    print(listener.sockets[0].getsockname()[1], flush=True)
    await listener.serve_forever()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float) -> None:
    loop = asyncio.get_running_loop()
    try:
        while data := await reader.read(CHUNK):
            if delay:
                loop.call_later(delay, writer.write, data)
            else:
                writer.write(data)
    except ConnectionError:  # one end was killed: the other one learns it by the end of its stream
        pass
    loop.call_later(delay, writer.close)


if __name__ == "__main__":
    # select() waits to the microsecond, where epoll rounds up to whole milliseconds.
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())) as runner:
        runner.run(serve(int(sys.argv[1]), float(sys.argv[2]) / 1_000))
