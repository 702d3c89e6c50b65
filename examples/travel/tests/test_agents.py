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
from travel.communication import APPROVAL_EUROS, compose, deliver, send_proposal
from travel.error_monitor import report_incident
from travel.flight_search import search_flights
from travel.orchestrator import plan_trip
from travel.payloads import ClientMessage, DeadJob, FlightRequest, Market, Proposal, Quote, Quotes, Trip, TripRequest
from travel.proposal_analysis import propose

from agentqueue import Context, Fatal
from agentqueue.agent.job_definition import job_of
from agentqueue.errors import InvalidPayload
from agentqueue.testing import context

Children = Callable[[Context], list[tuple[str, str, Any]]]
WHOSE: dict[str, Any] = {"request_id": "R-1", "user_id": "mueller", "priority": "high"}
MAIL = "anna@nordbank.example"


def message(text: str = "6 people Berlin to Lisbon next Friday, back Sunday") -> ClientMessage:
    return ClientMessage(**WHOSE, message=text, client_email=MAIL, received_on=dt.date(2026, 12, 2))


def quote(name: str, price: int) -> Quote:
    return Quote(
        id=name, operator_name=name, price=price, aircraft="PC-24", seats=8, hours=3.0, stops=0, route="BER-LIS"
    )


def proposal(price: int = 9_000) -> Proposal:
    return Proposal(
        **WHOSE,
        proposal_id="P-R-1",
        recipient_email=MAIL,
        summary="Berlin to Lisbon",
        offers=[quote("Spree Air", price)],
    )


async def test_the_orchestrator_sets_client_data_and_proposal_analysis_to_work(children: Children) -> None:
    ctx = context()
    trip = await plan_trip(ctx, message())
    (client_queue, client_job, client), (proposal_queue, proposal_job, requested) = children(ctx)
    assert (client_queue, client_job) == ("client-data", "remember-trip")
    assert (proposal_queue, proposal_job) == ("proposal-analysis", "propose")
    assert client == requested
    assert client["clientEmail"] == MAIL
    assert client["trip"] == trip.model_dump(mode="json")
    assert client["trip"] == {
        "departure": "Berlin",
        "arrival": "Lisbon",
        "passengers": 6,
        "date": "2026-12-11",
        "returnDate": "2026-12-13",
        "wish": "balanced",
    }


async def test_children_have_the_same_ids_on_a_rerun() -> None:
    first, again = context(), context()
    await plan_trip(first, message())
    await plan_trip(again, message())
    assert [job.id for job in first.children] == [job.id for job in again.children]


async def test_a_message_that_can_not_be_served_is_fatal_and_sets_nobody_to_work() -> None:
    ctx = context()
    with pytest.raises(Fatal, match="names no route"):
        await plan_trip(ctx, message("asdf qwer"))
    assert ctx.children == []


async def test_flight_search_returns_the_offers_of_a_market() -> None:
    asked = FlightRequest(
        **WHOSE, departure="Berlin", arrival="Lisbon", passengers=6, date=dt.date(2026, 12, 11), market=Market.OVERSEAS
    )
    found = await search_flights(context(), asked)
    assert found.summary == "6 passengers, Berlin (BER) to Lisbon (LIS), Fri 11 Dec 2026"
    assert {quote.operator_name for quote in found.quotes} == {"Atlantic Crest", "Gulf Meridian"}


async def test_flight_search_returns_why_it_has_no_offer() -> None:
    asked = FlightRequest(**WHOSE, departure="Atlantis", arrival="Lisbon", passengers=2, date=dt.date(2026, 12, 3))
    found = await search_flights(context(), asked)
    assert found.quotes == []
    assert "'Atlantis'" in found.refusal


def answers(europe: Quotes, overseas: Quotes) -> Context:
    """Return the context of `propose`, with the results of its children."""
    found = {Market.EUROPE: europe, Market.OVERSEAS: overseas}
    return context(children={search_flights: lambda asked: found[asked.market]})


async def test_proposal_analysis_sends_the_best_three_of_all_markets(children: Children) -> None:
    ctx = answers(
        Quotes(summary="a trip", quotes=[quote("D", 4), quote("B", 2)]),
        Quotes(summary="a trip", quotes=[quote("A", 1), quote("C", 3)]),
    )
    await propose(ctx, trip_request(1))
    ((queue, job, data),) = children(ctx)
    assert (queue, job) == ("communication", "send-proposal")
    assert (data["proposalId"], data["recipientEmail"], data["summary"]) == ("P-R-1", MAIL, "a trip")
    assert [offer["id"] for offer in data["offers"]] == ["A", "B", "C"]


async def test_the_offers_of_one_market_are_enough(children: Children) -> None:
    ctx = answers(Quotes(refusal="nothing flies there"), Quotes(summary="a trip", quotes=[quote("A", 1)]))
    await propose(ctx, trip_request(1))
    ((_, _, data),) = children(ctx)
    assert [offer["id"] for offer in data["offers"]] == ["A"]


async def test_a_trip_that_no_market_offers_is_fatal_with_the_reason() -> None:
    ctx = answers(Quotes(refusal="no airport is named 'Atlantis'"), Quotes(refusal="nothing flies there"))
    with pytest.raises(Fatal, match="'Atlantis'"):
        await propose(ctx, trip_request(1))
    assert ctx.children == []


async def test_a_proposal_goes_out_once(data: Path) -> None:
    receipts = [await send_proposal(context(), proposal()) for _ in range(2)]
    assert [receipt.sent for receipt in receipts] == [True, False]
    (path,) = (data / "outbox").iterdir()
    mail = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
    assert (path.name, mail["To"], mail["Message-ID"]) == ("P-R-1.eml", MAIL, "<P-R-1@jets.example>")
    assert "Spree Air: EUR 9,000" in mail.get_content()


async def test_an_expensive_proposal_goes_out_when_a_person_approves(data: Path) -> None:
    ctx = context(signals={"approval": {"approved": True}})
    assert (await send_proposal(ctx, proposal(APPROVAL_EUROS + 1))).sent


async def test_a_rejected_proposal_is_not_sent(data: Path) -> None:
    ctx = context(signals={"approval": {"approved": False}})
    with pytest.raises(Fatal, match="rejected P-R-1"):
        await send_proposal(ctx, proposal(APPROVAL_EUROS + 1))
    assert not (data / "outbox").exists()


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
    data: Path, mail_server: type[FakeMailServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMTP_URL", "smtp://desk:p%40ss@mail.example:587")
    for _ in range(2):
        await send_proposal(context(), proposal())
    assert mail_server.sent == ["tls ('mail.example', 587)", "login desk p@ss", f"mail {MAIL}"]


async def test_smtps_speaks_tls_from_the_start(mail_server: type[FakeMailServer], data: Path) -> None:
    deliver(compose(proposal()), "smtps://mail.example")
    assert mail_server.sent == [f"mail {MAIL}"]


@pytest.mark.parametrize(("code", "error"), [(550, Fatal), (450, smtplib.SMTPRecipientsRefused)])
async def test_a_refused_recipient_is_final_only_if_the_server_says_so(
    data: Path,
    mail_server: type[FakeMailServer],
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    error: type[Exception],
) -> None:
    monkeypatch.setenv("SMTP_URL", "smtp://mail.example")
    monkeypatch.setattr(mail_server, "refuse", code)
    with pytest.raises(error):
        await send_proposal(context(), proposal())
    assert not (data / "outbox").exists()


async def test_a_wrong_smtp_url_says_what_to_write(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMTP_URL", "mail.example")
    with pytest.raises(Fatal, match="write smtp://"):
        await send_proposal(context(), proposal())


def trip_request(number: int, day: dt.date = dt.date(2026, 12, 11), departure: str = "Berlin") -> TripRequest:
    trip = Trip(departure=departure, arrival="Lisbon", passengers=2, date=day)
    return TripRequest(request_id=f"R-{number}", user_id="mueller", client_email=MAIL, trip=trip)


async def test_client_data_keeps_a_file_per_client_and_a_rerun_changes_nothing(
    data: Path,
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


async def test_an_incident_is_written_once_and_tells_what_to_do(data: Path) -> None:
    letter = DeadJob(
        id="R-7",
        queue="flight-search",
        name="search-flights",
        reason="fatal",
        error="Fatal: no airport",
        data={"requestId": "R-7"},
    )
    for _ in range(2):
        report_incident(context(id="abc123"), letter)
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
