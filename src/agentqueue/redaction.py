"""Remove passwords from foreign text: exceptions, replies, echoed arguments."""

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote, quote_plus

REDACTED: Final = "***"
"""Text in the place of a password."""
ACCOUNT: Final = "[user:password@]"
"""Placeholder of an account in the URLs of our own messages. It is no secret and is not removed."""
_ACCOUNT_WITHOUT_AT: Final = ACCOUNT.replace("@", "\0")
_URL: Final = r"([A-Za-z][A-Za-z0-9+.-]*:/{1,3}+)"
_URL_WITH_ACCOUNT: Final = re.compile(_URL + r"\S*@")
_URL_WITH_ODD_ACCOUNT: Final = re.compile(_URL + r"(?!(?:[\w.-]+|\[[\w:.%]+\])(?::\d+)?(?:[/?\s:;,)'\"]|$))[^\n]*@")
"""Matches up to the last @ of the line, since an unescaped password may have spaces. Skips URLs without account."""
_MALFORMED: Final = re.compile(r"\b((?:rediss?|valkeys?|sentinel|redis[+]sentinel):/{1,3}):[^\s@]*", re.IGNORECASE)
"""Matches a password without @host behind it."""
_PASSWORD: Final = re.compile(r"(?i)\b((?:[a-z_]*password|passwd|pwd|auth)=)[^\s&'\"]+")


def redact(text: str, secrets: Iterable[str | None] = ()) -> str:
    """Return a text without passwords.

    Args:
        text: Any text, such as an exception, a reply or an echoed argument.
        secrets: Known passwords. Their percent-encoded forms are removed as well.
    """
    known = {form for secret in secrets if secret for form in _forms(secret)}
    for form in sorted(known, key=len, reverse=True):
        text = text.replace(form, REDACTED)
    text = text.replace(ACCOUNT, _ACCOUNT_WITHOUT_AT)
    if "@" in text:
        text = _URL_WITH_ODD_ACCOUNT.sub(rf"\1{REDACTED}@", text)
        text = _URL_WITH_ACCOUNT.sub(rf"\1{REDACTED}@", text)
    if "=" in text:
        text = _PASSWORD.sub(rf"\1{REDACTED}", text)
    if "/:" in text:
        text = _MALFORMED.sub(rf"\1{REDACTED}", text)
    return text.replace(_ACCOUNT_WITHOUT_AT, ACCOUNT)


def redact_exception(exc: BaseException, secrets: Iterable[str | None] = ()) -> None:
    """Remove passwords from an exception, and from its causes and contexts, which tracebacks and logs show."""
    known = tuple(secrets)
    seen: set[int] = set()
    rest: list[BaseException | None] = [exc]
    while rest:
        one = rest.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        one.args = tuple(redact(arg, known) if isinstance(arg, str) else arg for arg in one.args)
        rest += (one.__cause__, one.__context__)


def _forms(secret: str) -> tuple[str, ...]:
    escaped = repr(secret)[1:-1]
    return (secret, quote(secret, safe=""), quote(secret), quote_plus(secret), escaped)
