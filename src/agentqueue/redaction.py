"""Text that others wrote (exceptions, replies, echoed arguments), without the passwords in it."""

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote, quote_plus

REDACTED: Final = "***"
ACCOUNT: Final = "[user:password@]"
"""How our own messages write where an account stands in a URL; it is no secret and stays."""
_ACCOUNT_WITHOUT_AT: Final = ACCOUNT.replace("@", "\0")
_URL: Final = r"([A-Za-z][A-Za-z0-9+.-]*:/{1,3}+)"
_URL_WITH_ACCOUNT: Final = re.compile(_URL + r"\S*@")
_URL_WITH_ODD_ACCOUNT: Final = re.compile(_URL + r"(?!(?:[\w.-]+|\[[\w:.%]+\])(?::\d+)?(?:[/?\s:;,)'\"]|$))[^\n]*@")
"""Up to the last @ of the line, as an unescaped password may hold spaces; not after an address without an account."""
_MALFORMED: Final = re.compile(r"\b((?:rediss?|valkeys?|sentinel|redis[+]sentinel):/{1,3}):[^\s@]*", re.IGNORECASE)
"""A password without @host after it."""
_PASSWORD: Final = re.compile(r"(?i)\b((?:[a-z_]*password|passwd|pwd|auth)=)[^\s&'\"]+")


def redact(text: str, secrets: Iterable[str | None] = ()) -> str:
    """Return text of others (an exception, a reply, an argument that was echoed) without passwords.

    Args:
        text: any text.
        secrets: passwords that are known; their percent-encoded forms are removed as well.
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
    """Remove passwords from an exception, its causes and its context, which tracebacks and logs show too."""
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
