"""TLS contexts, and advice on TLS errors."""

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
    """Return the SSL context for these options.

    Raises:
        UsageError: a file can't be read or used; the message names it.
    """
    try:
        context = ssl.create_default_context(cafile=tls.ca_file, cadata=tls.ca_data)
    except (OSError, ValueError) as exc:
        raise UsageError(_unusable("certificate authorities", tls.ca_file, exc)) from exc
    context.check_hostname = tls.check_hostname and not tls.skip_verify
    if tls.skip_verify:
        context.verify_mode = ssl.CERT_NONE
    try:
        _load_certificate(context, tls)
    except OSError as exc:
        files = f"{tls.cert_file} and {tls.key_file}" if tls.cert_file else None
        raise UsageError(_unusable("client certificate", files, exc)) from exc
    return context


def _load_certificate(context: ssl.SSLContext, tls: Tls) -> None:
    if tls.cert_file and tls.key_file:
        context.load_cert_chain(tls.cert_file, tls.key_file, password=_no_password)
    elif tls.cert_data and tls.key_data:  # OpenSSL reads certificates from files only
        with tempfile.TemporaryDirectory(prefix="agentqueue-tls-") as name:
            folder = Path(name)
            (folder / "tls.crt").write_text(tls.cert_data)
            (folder / "tls.key").write_text(tls.key_data)
            context.load_cert_chain(folder / "tls.crt", folder / "tls.key", password=_no_password)


def _no_password() -> str:
    """Return no password, so that OpenSSL does not ask for one on the terminal."""
    return ""


def _unusable(what: str, files: str | None, exc: Exception) -> str:
    reason = exc.strerror if isinstance(exc, OSError) and not isinstance(exc, ssl.SSLError) else None
    where = f" in {files}" if files else ""
    return f"the {what} for TLS to Redis{where} can't be used ({reason or exc}); it must be PEM, and not encrypted"


def find_tls_error(exc: BaseException) -> ssl.SSLError | None:
    """Return the TLS error that caused an error, if there is one."""
    cause: BaseException | None = exc
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    return cause


def advise_on_tls(exc: ssl.SSLError) -> str:
    """Return what went wrong and what to do about it."""
    if isinstance(exc, ssl.SSLCertVerificationError):
        return _advise_on_certificate(exc)
    reason = getattr(exc, "reason", None) or ""  # errors that Python raises itself have none
    if "CERTIFICATE_REQUIRED" in reason or "HANDSHAKE_FAILURE" in reason:
        return (
            f"the server requires a client certificate ({reason}); set {env.REDIS_CERT_FILE} and {env.REDIS_KEY_FILE}"
        )
    if "ALERT" in reason:
        return f"the server rejects our certificate ({reason}); check {env.REDIS_CERT_FILE}"
    if reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"):
        return f"the server does not speak TLS there ({reason}); use redis://, or the port for TLS"
    return str(exc)


def _advise_on_certificate(exc: ssl.SSLCertVerificationError) -> str:
    reason = exc.verify_message.rstrip(".")
    if exc.verify_code in WRONG_NAME:
        return f"{reason}; connect by a name that the certificate contains, or have one issued for this name"
    if exc.verify_code in WRONG_TIME:
        return f"{reason}; renew the server's certificate, or correct this machine's clock"
    return (
        f"the server's certificate is not trusted ({reason}); set {env.REDIS_CA_FILE} to the authority that issued it"
    )
