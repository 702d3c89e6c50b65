"""The one place that draws random identifiers."""

import os


def new_id() -> str:
    """Return a job ID of 32 hexadecimal digits: 128 random bits."""
    return os.urandom(16).hex()


def new_nonce() -> str:
    """Return 12 hexadecimal digits that distinguish two jobs which producers have sent with the same ID."""
    return os.urandom(6).hex()
