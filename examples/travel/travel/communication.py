"""Agent that sends proposals to the outbox folder, and by SMTP if SMTP_URL is set. A person approves expensive ones."""

import os
import smtplib
from datetime import timedelta
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate
from typing import Final
from urllib.parse import unquote, urlsplit

from agentqueue import Agent, Context, Fatal
from travel.files import data_folder, write_once
from travel.payloads import Proposal, Quote, Receipt

APPROVAL: Final = "approval"
"""Name of the signal: `agentqueue signal ID approval '{"approved": true}'`."""
APPROVAL_EUROS: Final = 100_000
"""Price of the best offer above which a person approves the proposal before the client gets it."""
APPROVAL_TIMEOUT: Final = timedelta(days=2)
SENDER = "Charter Desk <desk@jets.example>"
SMTP_TIMEOUT = 20.0
"""Seconds for each reply of the mail server. The job's own timeout is 60 s."""
LINES = SMTP.clone(max_line_length=200)
"""Mail policy with lines that are long enough for any subject (RFC 5322 allows 998 characters)."""

agent = Agent("communication")


@agent.job(timeout=60, attempts=5)
async def send_proposal(ctx: Context, proposal: Proposal) -> Receipt:
    """Send a proposal once. One above APPROVAL_EUROS waits for a person, without a slot and without a pod."""
    best = proposal.offers[0]
    if best.price > APPROVAL_EUROS:
        answer = await ctx.wait_for(APPROVAL, timeout=APPROVAL_TIMEOUT)
        if not answer.data["approved"]:
            raise Fatal(f"{answer.sender or 'somebody'} rejected {proposal.proposal_id} for EUR {best.price:,}")
    sent = await ctx.step("send", send, proposal)
    ctx.log.info("sent" if sent else "sent before", proposal=proposal.proposal_id)
    return Receipt(
        proposal_id=proposal.proposal_id,
        recipient_email=proposal.recipient_email,
        operator_name=best.operator_name,
        price=best.price,
        sent=sent,
    )


def send(proposal: Proposal) -> bool:
    """Send a proposal unless its file is in the outbox. As a plain `def`, the step runs in a thread.

    The file is written after the mail server has accepted the message. A crash between the two sends a second copy with
    the same Message-ID, which mail programs show once.
    """
    path = data_folder() / "outbox" / f"{proposal.proposal_id}.eml"
    message = compose(proposal)
    smtp_url = os.environ.get("SMTP_URL")
    if smtp_url and not path.exists():
        deliver(message, smtp_url)
    return write_once(path, bytes(message))


def compose(proposal: Proposal) -> EmailMessage:
    """Return the proposal as an e-mail."""
    message = EmailMessage(policy=LINES)
    message["From"] = SENDER
    message["To"] = proposal.recipient_email
    message["Subject"] = f"Your charter: {proposal.summary}"
    message["Date"] = formatdate()
    message["Message-ID"] = f"<{proposal.proposal_id}@jets.example>"
    offers = "\n\n".join(_describe(number, quote) for number, quote in enumerate(proposal.offers, start=1))
    message.set_content(
        f"Hello,\n\nthank you for your request ({proposal.request_id}). For {proposal.summary}, we propose:\n\n"
        f"{offers}\n\nReply with the number of your choice and we hold the aircraft for you.\n\nThe charter desk\n"
    )
    return message


def _describe(number: int, quote: Quote) -> str:
    stops = {0: "non-stop", 1: "1 fuel stop"}.get(quote.stops, f"{quote.stops} fuel stops")
    return (
        f"{number}. {quote.aircraft} by {quote.operator_name}: EUR {quote.price:,}\n"
        f"   {quote.seats} seats, {quote.route}, {stops}, {quote.hours} h in the air and on stops"
    )


def deliver(message: EmailMessage, smtp_url: str) -> None:
    """Send the message to a mail server: `smtp://[user:password@]host[:port]`, or `smtps://` for TLS from the start.

    Raises:
        Fatal: The server refuses the recipient for good, or the URL is not valid. Other errors lead to a retry.
    """
    parts = urlsplit(smtp_url)
    if parts.scheme not in ("smtp", "smtps") or not parts.hostname:
        raise Fatal("SMTP_URL is not a mail server's; write smtp://[user:password@]host[:port], or smtps://")
    try:
        with _connect(parts.scheme, parts.hostname, parts.port) as server:
            if parts.username:
                server.login(unquote(parts.username), unquote(parts.password or ""))
            server.send_message(message)
    except smtplib.SMTPRecipientsRefused as exc:
        if all(code >= 500 for code, _ in exc.recipients.values()):
            raise Fatal(f"the mail server refuses the recipient: {exc.recipients}") from exc
        raise


def _connect(scheme: str, host: str, port: int | None) -> smtplib.SMTP:
    if scheme == "smtps":
        return smtplib.SMTP_SSL(host, port or 465, timeout=SMTP_TIMEOUT)
    server = smtplib.SMTP(host, port or 25, timeout=SMTP_TIMEOUT)
    server.ehlo()
    if server.has_extn("starttls"):
        server.starttls()
    return server
