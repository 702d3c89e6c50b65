"""Decode values that occur in the replies of several scripts."""

from collections.abc import Iterable, Sequence


def decode_ids(values: Iterable[bytes]) -> list[str]:
    """Return job IDs as text. Bytes that are not UTF-8 survive the way back to Redis."""
    return [value.decode(errors="surrogateescape") for value in values]


def decode_hash(flat: Sequence[bytes] | None) -> dict[str, bytes]:
    """Return the fields of a hash, which Lua returns as a flat list."""
    if not flat:
        return {}
    return {flat[i].decode(errors="replace"): flat[i + 1] for i in range(0, len(flat), 2)}


def decode_pairs(flat: Sequence[bytes]) -> list[tuple[str, str]]:
    """Return the pairs of a flat list of texts."""
    words = decode_ids(flat)
    return list(zip(words[::2], words[1::2], strict=True))
