"""What a queue keeps of the versions of its workers, so that a rollback needs no pod, and schedules in a queue."""

from collections.abc import AsyncIterator

import pytest

from agentqueue import Client
from agentqueue.keys import KeySpace
from agentqueue.model.schedule import Schedule
from agentqueue.model.template import KeptTemplate, TemplateState
from agentqueue.store import Registrations, Schedules
from agentqueue.store.registrations import CodeSet
from agentqueue.store.templates import MAX_TEMPLATES, Templates
from agentqueue_operator.queues.reader import QueueReader
from tests.support.replies import awaited

QUEUE = "reports"
OLD = CodeSet(jobs={"report": None}, crons=[Schedule("nightly", cron="0 3 * * *", job="report")])
NEW = CodeSet(
    jobs={"report": {"type": "string"}, "mail": None}, crons=[Schedule("hourly", cron="0 * * * *", job="mail")]
)


class Bed:
    """A queue whose workers register."""

    def __init__(self, client: Client) -> None:
        self.server = client.server
        self.templates = Templates(client.server)
        self.registrations = Registrations(client.server)
        self.schedules = Schedules(client.server)

    async def register(self, code: CodeSet, *, at_ms: int = 1) -> None:
        """Register as a worker does at its start."""
        await self.registrations.register(QUEUE, code, worker="w-1", version="1", time_ms=at_ms, starts=True)
        await self.schedules.put(QUEUE, source="code", schedules=code.crons)

    async def state(self, template: str) -> TemplateState:
        return (await self.templates.read({QUEUE: template}))[QUEUE]

    async def forget_when(self) -> None:
        """Let the last registration be of long ago, and of workers that are gone."""
        await awaited(self.server.redis.hset(KeySpace(QUEUE).registration, "at", "1"))

    async def crons(self) -> list[str]:
        return [found.schedule.name for found in await self.schedules.read(QUEUE)]


@pytest.fixture
async def bed(server_url: str) -> AsyncIterator[Bed]:
    async with Client(server_url) as client:
        yield Bed(client)


async def test_what_a_version_registers_is_kept_with_its_number_of_jobs(bed: Bed) -> None:
    assert await bed.state("t1") == TemplateState(None, "")
    await bed.register(OLD)
    assert await bed.state("t1") == TemplateState(None, OLD.fingerprint)
    kept = await bed.templates.keep(QUEUE, "t1", OLD.fingerprint, at_ms=5)
    assert kept == KeptTemplate(OLD.fingerprint, 5, jobs=1)
    assert await bed.state("t1") == TemplateState(kept, OLD.fingerprint)
    assert await bed.state("t2") == TemplateState(None, OLD.fingerprint)


async def test_what_is_not_registered_is_not_kept(bed: Bed) -> None:
    assert await bed.templates.keep(QUEUE, "t1", OLD.fingerprint, at_ms=5) is None
    await bed.register(NEW)
    assert await bed.templates.keep(QUEUE, "t1", OLD.fingerprint, at_ms=5) is None
    assert (await bed.state("t1")).kept is None


async def test_a_version_that_registers_nothing_is_kept_too(bed: Bed) -> None:
    assert await bed.templates.keep(QUEUE, "t1", "", at_ms=5) == KeptTemplate("", 5)
    assert await bed.state("t1") == TemplateState(KeptTemplate("", 5), "")


async def test_a_rollback_brings_back_the_jobs_and_the_crons(bed: Bed) -> None:
    await bed.register(OLD)
    await bed.templates.keep(QUEUE, "t1", OLD.fingerprint, at_ms=5)
    await bed.register(NEW)
    await bed.templates.keep(QUEUE, "t2", NEW.fingerprint, at_ms=6)
    assert await bed.crons() == ["hourly"]
    assert not await bed.templates.restore(QUEUE, OLD.fingerprint, at_ms=7)  # NEW was registered a moment ago
    await bed.forget_when()
    assert await bed.templates.restore(QUEUE, OLD.fingerprint, at_ms=8)
    assert await bed.crons() == ["nightly"]
    found = await bed.registrations.read(QUEUE)
    assert found is not None
    assert (found.fingerprint, dict(found.jobs), found.worker) == (OLD.fingerprint, {"report": None}, "w-1")
    await bed.forget_when()
    assert await bed.templates.restore(QUEUE, NEW.fingerprint, at_ms=9)
    assert await bed.crons() == ["hourly"]


async def test_what_is_not_kept_is_not_restored(bed: Bed) -> None:
    assert not await bed.templates.restore(QUEUE, OLD.fingerprint, at_ms=8)


async def test_few_versions_are_kept_and_what_none_of_them_has_registered_is_forgotten(bed: Bed) -> None:
    await bed.register(OLD)
    await bed.templates.keep(QUEUE, "old", OLD.fingerprint, at_ms=0)
    await bed.register(NEW)
    for number in range(1, MAX_TEMPLATES + 1):
        await bed.templates.keep(QUEUE, f"t{number}", NEW.fingerprint, at_ms=number)
    fields = await awaited(bed.server.redis.hkeys(KeySpace(QUEUE).templates))
    names = [f"t{number}" for number in range(1, MAX_TEMPLATES + 1)]
    assert sorted(name.decode() for name in fields) == [f"code:{NEW.fingerprint}", *names]


async def test_another_programs_field_is_replaced(bed: Bed) -> None:
    await awaited(bed.server.redis.hset(KeySpace(QUEUE).templates, "t1", "what?"))
    assert (await bed.state("t1")).kept == KeptTemplate("what?", 0)
    await bed.register(OLD)
    await bed.templates.keep(QUEUE, "t1", OLD.fingerprint, at_ms=5)
    assert (await bed.state("t1")).kept == KeptTemplate(OLD.fingerprint, 5, jobs=1)


async def test_a_host_reads_keeps_and_restores_versions_and_puts_schedules(bed: Bed) -> None:
    reader = QueueReader(bed.server)
    await bed.register(OLD)
    kept = await reader.keep_template(QUEUE, "t1", OLD.fingerprint)
    assert kept is not None
    assert await reader.read_templates({QUEUE: "t1"}) == {QUEUE: TemplateState(kept, OLD.fingerprint)}
    assert await reader.restore_registration(QUEUE, OLD.fingerprint)
    await reader.put_schedules(QUEUE, [Schedule("weekly", cron="0 0 * * 1", job="report")])
    assert await bed.crons() == ["nightly", "weekly"]
    metrics = (await reader.read({QUEUE: 0.0}))[QUEUE]
    assert metrics.next_due_s is not None
    assert 0 < metrics.next_due_s <= 86_400
    await reader.put_schedules(QUEUE, [])
    assert await bed.crons() == ["nightly"]
