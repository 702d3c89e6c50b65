"""For every test."""

import asyncio

# Without it, pytest-asyncio's look at "the current event loop" makes one (Python < 3.14) that nobody closes, and its
# ResourceWarning fails whichever test runs when it is collected.
asyncio.set_event_loop(None)
