"""Each agent alone: its result, and the jobs that it sends."""

import datetime as dt
import email
import email.policy
import json
import smtplib
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from travel.client_data import LAST_TRIPS, add_trip, remember_trip
from travel.communication import compose, deliver, send_proposal
from travel.error_monitor import report_incident
from travel.flight_search import search_flights
from travel.orchestrator import plan_trip
from travel.payloads import ClientMessage, DeadJob, FlightRequest, Proposal, Quote, Quotes, Trip, TripRequest
from travel.proposal_analysis import analyze_quotes

from agentqueue import Context, Fatal
from agentqueue.agent.job_definition import job_of
from agentqueue.errors import InvalidPayload

MakeContext = Callable[..., Context]
Children = Callable[[Context], list[tuple[str, str, Any]]]
WHOSE: dict[str, Any] = {"request_id": "R-1", "user_id": "mueller", "priority": "high"}
MAIL = "anna@nordbank.example"


def message(text: str = "6 people Berlin to Lisbon next Friday, back Sunday") -> ClientMessage:
    return ClientMessage(**WHOSE, message=text, client_email=MAIL, received_on=dt.date(2026, 12, 2))


def quote(name: str, price: int) -> Quote:
    return Quote(
        id=name, operator_name=name, price=price, aircraft="PC-24", seats=8, hours=3.0, stops=0, route="BER-LIS"
    )


def proposal() -> Proposal:
    return Proposal(
        **WHOSE,
        proposal_id="P-R-1",
        recipient_email=MAIL,
        summary="Berlin to Lisbon",
        offers=[quote("Spree Air", 9_000)],
    )


async def test_the_orchestrator_sets_client_data_and_flight_search_to_work(
    context: MakeContext, children: Children
) -> None:
    ctx = context()
    trip = await plan_trip(ctx, message())
    (client_queue, client_job, client), (search_queue, search_job, search) = children(ctx)
    assert (client_queue, client_job, search_queue, search_job) == (
        "client-data",
        "remember-trip",
        "flight-search",
        "search-flights",
    )
    assert client["trip"] == trip.model_dump(mode="json")
    assert search == {
        "requestId": "R-1",
        "userId": "mueller",
        "priority": "high",
        "clientEmail": MAIL,
        "departure": "Berlin",
        "arrival": "Lisbon",
        "passengers": 6,
        "date": "2026-12-11",
        "returnDate": "2026-12-13",
        "wish": "balanced",
    }


async def test_children_have_the_same_ids_on_a_rerun(context: MakeContext) -> None:
    first, again = context(), context()
    await plan_trip(first, message())
    await plan_trip(again, message())
    assert [job.id for job in first.children] == [job.id for job in again.children]


async def test_a_message_that_can_not_be_served_is_fatal_and_sets_nobody_to_work(context: MakeContext) -> None:
    ctx = context()
    with pytest.raises(Fatal, match="names no route"):
        await plan_trip(ctx, message("asdf qwer"))
    assert ctx.children == []


async def test_flight_search_sends_quotes_to_proposal_analysis(context: MakeContext, children: Children) -> None:
    ctx = context()
    asked = FlightRequest(
        **WHOSE, client_email=MAIL, departure="Berlin", arrival="Lisbon", passengers=6, date=dt.date(2026, 12, 11)
    )
    await search_flights(ctx, asked)
    ((queue, job, data),) = children(ctx)
    assert (queue, job) == ("proposal-analysis", "analyze-quotes")
    assert data["summary"] == "6 passengers, Berlin (BER) to Lisbon (LIS), Fri 11 Dec 2026"
    assert {"id", "operatorName", "price"} <= data["quotes"][0].keys()


async def test_flight_search_refuses_an_unknown_airport_for_good(context: MakeContext) -> None:
    asked = FlightRequest(
        **WHOSE, client_email=MAIL, departure="Atlantis", arrival="Lisbon", passengers=2, date=dt.date(2026, 12, 3)
    )
    with pytest.raises(Fatal, match="'Atlantis'"):
        await search_flights(context(), asked)


async def test_proposal_analysis_sends_the_best_three(context: MakeContext, children: Children) -> None:
    ctx = context()
    quotes = [quote("D", 4), quote("B", 2), quote("A", 1), quote("C", 3)]
    await analyze_quotes(ctx, Quotes(**WHOSE, client_email=MAIL, summary="a trip", quotes=quotes))
    ((queue, job, data),) = children(ctx)
    assert (queue, job) == ("communication", "send-proposal")
    assert (data["proposalId"], data["recipientEmail"]) == ("P-R-1", MAIL)
    assert [offer["id"] for offer in data["offers"]] == ["A", "B", "C"]


async def test_a_proposal_goes_out_once(context: MakeContext, data: Path) -> None:
    receipts = [send_proposal(context(), proposal()) for _ in range(2)]
    assert [receipt.sent for receipt in receipts] == [True, False]
    (path,) = (data / "outbox").iterdir()
    mail = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
    assert (path.name, mail["To"], mail["Message-ID"]) == ("P-R-1.eml", MAIL, "<P-R-1@jets.example>")
    assert "Spree Air: EUR 9,000" in mail.get_content()


class FakeMailServer:
    """A fake of smtplib.SMTP."""

    sent: ClassVar[list[str]] = []
    refuse: int | None = None

    def __init__(self, host: str, port: int, *, timeout: float) -> None:
        self.where = (host, port)

    def __enter__(self) -> "FakeMailServer":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def ehlo(self) -> None:
        pass

    def has_extn(self, name: str) -> bool:
        return True

    def starttls(self) -> None:
        self.sent.append(f"tls {self.where}")

    def login(self, user: str, password: str) -> None:
        self.sent.append(f"login {user} {password}")

    def send_message(self, mail: Any) -> None:
        if self.refuse:
            raise smtplib.SMTPRecipientsRefused({mail["To"]: (self.refuse, b"no such user")})
        self.sent.append(f"mail {mail['To']}")


@pytest.fixture
def mail_server(monkeypatch: pytest.MonkeyPatch) -> type[FakeMailServer]:
    monkeypatch.setattr(FakeMailServer, "sent", [])
    monkeypatch.setattr("travel.communication.smtplib.SMTP", FakeMailServer)
    monkeypatch.setattr("travel.communication.smtplib.SMTP_SSL", FakeMailServer)
    return FakeMailServer


async def test_with_a_mail_server_a_proposal_is_mailed_once(
    context: MakeContext, data: Path, mail_server: type[FakeMailServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMTP_URL", "smtp://desk:p%40ss@mail.example:587")
    for _ in range(2):
        send_proposal(context(), proposal())
    assert mail_server.sent == ["tls ('mail.example', 587)", "login desk p@ss", f"mail {MAIL}"]


async def test_smtps_speaks_tls_from_the_start(mail_server: type[FakeMailServer], data: Path) -> None:
    deliver(compose(proposal()), "smtps://mail.example")
    assert mail_server.sent == [f"mail {MAIL}"]


@pytest.mark.parametrize(("code", "error"), [(550, Fatal), (450, smtplib.SMTPRecipientsRefused)])
async def test_a_refused_recipient_is_final_only_if_the_server_says_so(
    context: MakeContext,
    data: Path,
    mail_server: type[FakeMailServer],
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    error: type[Exception],
) -> None:
    monkeypatch.setenv("SMTP_URL", "smtp://mail.example")
    monkeypatch.setattr(mail_server, "refuse", code)
    with pytest.raises(error):
        send_proposal(context(), proposal())
    assert not (data / "outbox").exists()


async def test_a_wrong_smtp_url_says_what_to_write(
    context: MakeContext, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMTP_URL", "mail.example")
    with pytest.raises(Fatal, match="write smtp://"):
        send_proposal(context(), proposal())


def trip_request(number: int, day: dt.date = dt.date(2026, 12, 11), departure: str = "Berlin") -> TripRequest:
    trip = Trip(departure=departure, arrival="Lisbon", passengers=2, date=day)
    return TripRequest(request_id=f"R-{number}", user_id="mueller", client_email=MAIL, trip=trip)


async def test_client_data_keeps_a_file_per_client_and_a_rerun_changes_nothing(
    context: MakeContext, data: Path
) -> None:
    for number in (1, 2, 1):
        result = remember_trip(context(), trip_request(number))
    client = json.loads((data / "clients" / "mueller.json").read_bytes())
    assert set(client["trips"]) == {"R-1", "R-2"}
    assert client["preferences"] == {"home": "Berlin", "wish": "balanced"} == result["preferences"]
    assert client["email"] == MAIL


def test_client_data_forgets_the_oldest_trips() -> None:
    client: dict[str, Any] = {}
    for number in range(LAST_TRIPS + 5):
        client = add_trip(client, trip_request(number, dt.date(2026, 12, 1) + dt.timedelta(days=number)))
    assert len(client["trips"]) == LAST_TRIPS
    assert "R-4" not in client["trips"]


async def test_an_incident_is_written_once_and_tells_what_to_do(context: MakeContext, data: Path) -> None:
    letter = DeadJob(
        id="R-7",
        queue="flight-search",
        name="search-flights",
        reason="fatal",
        error="Fatal: no airport",
        data={"requestId": "R-7"},
    )
    for _ in range(2):
        report_incident(context("abc123"), letter)
    (path,) = (data / "incidents").iterdir()
    text = path.read_text()
    assert "Cause: Fatal: no airport" in text
    assert "agentqueue dead replay flight-search R-7" in text


def test_a_bad_address_is_refused_before_it_is_sent() -> None:
    wire = message().model_dump(mode="json") | {"clientEmail": "not-an-address"}
    job = job_of(plan_trip)
    assert job is not None
    with pytest.raises(InvalidPayload, match=r"clientEmail.*write it as name@company\.com"):
        job.payload.load(wire)


def test_an_id_that_could_name_a_file_elsewhere_is_refused() -> None:
    job = job_of(send_proposal)
    assert job is not None
    with pytest.raises(InvalidPayload, match="proposalId"):
        job.payload.load(proposal().model_dump(mode="json") | {"proposalId": "../../etc/passwd"})
