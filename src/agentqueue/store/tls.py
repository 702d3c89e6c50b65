"""TLS as the standard library takes it, and what its errors mean."""

import ssl
import tempfile
from pathlib import Path
from typing import Final

from agentqueue.errors import UsageError
from agentqueue.service import environment as env
from agentqueue.store.options import Tls

WRONG_NAME: Final = (62, 64)
"""OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH."""
WRONG_TIME: Final = (9, 10)
"""X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED."""


def tls_context(tls: Tls) -> ssl.SSLContext:
    """How the standard library says it.

    Raises:
        UsageError: a file that can't be read, or can't be used; the message names it.
    """
    try:
        context = ssl.create_default_context(cafile=tls.ca_file, cadata=tls.ca_data)
    except (OSError, ValueError) as exc:
        raise UsageError(_unreadable("certificate authorities", tls.ca_file, exc)) from exc
    context.check_hostname = tls.check_hostname and not tls.skip_verify
    if tls.skip_verify:
        context.verify_mode = ssl.CERT_NONE
    try:
        _load_certificate(context, tls)
    except OSError as exc:
        files = f"{tls.cert_file} and {tls.key_file}" if tls.cert_file else None
        raise UsageError(_unreadable("client certificate", files, exc)) from exc
    return context


def _load_certificate(context: ssl.SSLContext, tls: Tls) -> None:
    if tls.cert_file and tls.key_file:
        context.load_cert_chain(tls.cert_file, tls.key_file, password=_no_password)
    elif tls.cert_data and tls.key_data:  # OpenSSL takes these from files only
        with tempfile.TemporaryDirectory(prefix="agentqueue-tls-") as name:
            folder = Path(name)
            (folder / "tls.crt").write_text(tls.cert_data)
            (folder / "tls.key").write_text(tls.key_data)
            context.load_cert_chain(folder / "tls.crt", folder / "tls.key", password=_no_password)


def _no_password() -> str:
    """Instead of OpenSSL's question on the terminal, in a program that nobody looks at."""
    return ""


def _unreadable(what: str, files: str | None, exc: Exception) -> str:
    reason = exc.strerror if isinstance(exc, OSError) and not isinstance(exc, ssl.SSLError) else None
    where = f" in {files}" if files else ""
    return f"the {what} for TLS to Redis{where} can't be used ({reason or exc}); it must be PEM, and not encrypted"


def find_tls_error(exc: BaseException) -> ssl.SSLError | None:
    """The TLS error that an error came from, if it did."""
    cause: BaseException | None = exc
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    return cause


def advise_on_tls(exc: ssl.SSLError) -> str:
    """What went wrong, and what to do."""
    if isinstance(exc, ssl.SSLCertVerificationError):
        return _advise_on_certificate(exc)
    reason = getattr(exc, "reason", None) or ""  # one that Python made has none
    if "CERTIFICATE_REQUIRED" in reason or "HANDSHAKE_FAILURE" in reason:
        return f"the server wants to see a certificate ({reason}); set {env.REDIS_CERT_FILE} and {env.REDIS_KEY_FILE}"
    if "ALERT" in reason:
        return f"the server does not take our certificate ({reason}); check {env.REDIS_CERT_FILE}"
    if reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"):
        return f"what answers there speaks no TLS ({reason}); write redis://, or give the port for TLS"
    return str(exc)


def _advise_on_certificate(exc: ssl.SSLCertVerificationError) -> str:
    said = exc.verify_message.rstrip(".")
    if exc.verify_code in WRONG_NAME:
        return f"{said}; connect by a name that the certificate bears, or have it issued for this one"
    if exc.verify_code in WRONG_TIME:
        return f"{said}; have the server's certificate renewed, or set this machine's clock"
    return f"the server's certificate is not trusted ({said}); set {env.REDIS_CA_FILE} to the authority that issued it"
