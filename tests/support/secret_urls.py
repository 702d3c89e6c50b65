"""Redis URLs of every form, right and wrong, each with the same password."""

from typing import Final

SECRET: Final = "hunter2"
GOOD: Final = (
    f"redis://:{SECRET}@127.0.0.1:1",
    f"redis://user:{SECRET}@127.0.0.1:1/0",
    f"REDIS://:{SECRET}@127.0.0.1:1",
    f"rediss://:{SECRET}@127.0.0.1:1/0",
    "redis://u%40x:%68unter2@127.0.0.1:1",
    f"redis://127.0.0.1:1?password={SECRET}",
    f"redis://127.0.0.1:1/0?username=me&password={SECRET}",
    f"unix://:{SECRET}@/nonexistent/r.sock?db=0",
    f"unix://:{SECRET}@/nonexistent/r.sock",
    f"unix:///nonexistent/r.sock?password={SECRET}",
    f"  redis://:{SECRET}@127.0.0.1:1\n",
)
"""Those that lead to a server; none listens there."""
BAD: Final = (
    f"redis://:{SECRET}@127.0.0.1:1?decode_responses=true",
    f"redis://:{SECRET}@127.0.0.1:1?ssl=true",
    f"redis://127.0.0.1:1?password={SECRET}&foo=bar",
    f"redis://127.0.0.1:1?passwd={SECRET}",
    f"redis://:{SECRET}@127.0.0.1:port",
    f"redis://:{SECRET}@127.0.0.1:99999",
    f"redis://:{SECRET}@[::1",
    f"redis://:{SECRET}@127.0.0.1:1/zero",
    f"redis://:x#{SECRET}@127.0.0.1:1",
    f"redis://:{SECRET}#x@127.0.0.1:1",
    f"redis://:x/{SECRET}@127.0.0.1:1",
    f"redis://:{SECRET}/x@127.0.0.1:1",
    f"redis://:x?{SECRET}@127.0.0.1:1",
    f"redis://:x {SECRET}@127.0.0.1:1",
    f"redis://:{SECRET}",
    f"redis:/:{SECRET}@127.0.0.1:1",
    f"redis:///:{SECRET}@127.0.0.1:1",
    f"http://:{SECRET}@127.0.0.1:1",
    f"redis+sentinel://:{SECRET}@s0:26379,s1:26379/jobs",
    f"valkey://user:{SECRET}@127.0.0.1:1",
    f"unix://:{SECRET}@run/r.sock",
)
"""Those that are refused."""
FORMS: Final = (*(url for url in GOOD), *BAD)
