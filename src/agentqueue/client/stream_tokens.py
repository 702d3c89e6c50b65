"""Tokens with which a browser may read the stream of one job, without the rights of the console's own token.

A token is `aqs.EXPIRY.SIGNATURE`. The signature is an HMAC-SHA256 over the job's ID and the expiry, with a key derived
from the console's token, so that the console keeps no list of them.
"""

import hmac
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from hashlib import sha256
from typing import Final

from agentqueue.clock import now_ms
from agentqueue.errors import UsageError
from agentqueue.keys import check_id
from agentqueue.model.retry_policy import Seconds, seconds
from agentqueue.service.environment import CONSOLE_TOKEN

PREFIX: Final = "aqs"
_PURPOSE: Final = b"agentqueue: read the stream of one job, version 1"
"""Derives the key, so that no other use of the console's token makes such signatures."""


def mint_stream_token(secret: str, job_id: str, *, expires_s: int) -> str:
    """Return a token for the stream of a job.

    Args:
        secret: the console's token.
        job_id: ID of the job.
        expires_s: until when the token counts, in seconds since the epoch.
    """
    key = hmac.digest(secret.encode(), _PURPOSE, "sha256")
    signature = hmac.new(key, f"{expires_s}\n{job_id}".encode(errors="surrogateescape"), sha256).digest()
    return f"{PREFIX}.{expires_s}.{urlsafe_b64encode(signature).decode().rstrip('=')}"


def mint_for(environ: Mapping[str, str], job_id: str, ttl: Seconds, *, secret: str | None = None) -> str:
    """Return a token for the stream of a job that counts from now on.

    Args:
        environ: the variables that may have the console's token.
        job_id: ID of the job.
        ttl: time for which it counts, in seconds or as a timedelta.
        secret: the console's token, instead of the one in `environ`.

    Raises:
        UsageError: There is no secret, or `ttl` is out of range.
    """
    known = secret or environ.get(CONSOLE_TOKEN, "").strip()
    if not known:
        raise UsageError(f"a stream token is signed with the console's token: set {CONSOLE_TOKEN} to it")
    expires_s = now_ms() // 1000 + max(round(seconds(ttl, "ttl")), 1)
    return mint_stream_token(known, check_id(job_id), expires_s=expires_s)


def is_stream_token(secret: str, job_id: str, token: str, *, now_s: int) -> bool:
    """Return whether a token allows to read the stream of a job now. The comparison takes constant time.

    Args:
        secret: the console's token.
        job_id: ID of the job.
        token: the token, from anybody.
        now_s: seconds since the epoch.
    """
    prefix, _, rest = token.partition(".")
    expires = rest.partition(".")[0]
    if prefix != PREFIX or not (expires.isascii() and expires.isdigit() and len(expires) <= 12):
        return False
    expected = mint_stream_token(secret, job_id, expires_s=int(expires))
    return hmac.compare_digest(token.encode(errors="replace"), expected.encode()) and now_s < int(expires)
