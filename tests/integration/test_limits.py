"""Limits on a server: the window, the line, rests and probes, and what becomes of dead workers' calls."""

import pytest

from agentqueue.keys import LIMIT, LIMIT_LINE, Level
from agentqueue.model.job import JobRecord, encode_job
from agentqueue.model.limits import Limit
from agentqueue.model.new_job import NewJob
from agentqueue.store import Engine, Server, Store
from agentqueue.store.limits import Granted, LimitCall, Limits, LimitView, Refused, Waits
from agentqueue.store.time_travel import advance_time
from tests.support.replies import awaited, field

OWNER = "w/1"
MINUTE_MS = 60_000


class Calls:
    """Calls of jobs of one worker under limits."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.store, self.engine, self.limits = Store(server), Engine(server, "q"), Limits(server)
        self.numbers: dict[str, int] = {}

    async def define(self, **limits: Limit) -> None:
        await self.limits.define("q", "test", limits)

    async def hold(self, *names: str) -> None:
        """Let the worker hold jobs of these names."""
        jobs = [NewJob("q", name, encode_job(JobRecord("noop", queue="q"))) for name in names]
        await self.store.enqueue(jobs)
        await self.engine.finish_and_claim(seq=len(self.numbers) + 1, owner=OWNER, want=len(names))
        for name in names:
            self.numbers[name] = len(self.numbers) + 1

    def call(
        self,
        name: str,
        *limits: str,
        units: int | None = 1,
        level: Level = Level.NORMAL,
        tenant: str = "",
        number: int | None = None,
    ) -> LimitCall:
        number = self.numbers[name] if number is None else number
        return LimitCall(OWNER, number, name, sorted(limits or ("gpt",)), level, tenant, units=units)

    async def reserve(self, call: LimitCall) -> Granted | Waits | Refused:
        return await self.limits.reserve("q", call)

    async def grant(self, call: LimitCall) -> Granted:
        reply = await self.reserve(call)
        assert isinstance(reply, Granted)
        return reply

    async def wait(self, call: LimitCall) -> Waits:
        reply = await self.reserve(call)
        assert isinstance(reply, Waits)
        return reply

    async def settle(self, call: LimitCall, granted: Granted, units: int | None = None) -> None:
        await self.limits.settle("q", call, granted, units=units)

    async def refuse(self, call: LimitCall, granted: Granted, rest_s: float | None = 20) -> int:
        rest_ms = None if rest_s is None else round(1000 * rest_s)
        settled = await self.limits.settle("q", call, granted, refused="429", rest_ms=rest_ms, resting="gpt")
        return settled.rests_until_ms

    async def pass_time(self, seconds: float) -> None:
        await advance_time(self.store, round(1000 * seconds))

    async def turns(self, calls: list[LimitCall]) -> list[set[str]]:
        """Return the jobs that get their turn in each minute until none waits, whatever the order in which they ask."""
        minutes: list[set[str]] = []
        left = {call.job_id: call for call in calls}
        while left:
            await self.pass_time(61)
            got = {name for name in sorted(left) if isinstance(await self.reserve(left[name]), Granted)}
            minutes.append(got)
            left = {name: call for name, call in left.items() if name not in got}
        return minutes

    async def view(self) -> LimitView:
        (view,) = await self.limits.view()
        return view


@pytest.fixture
def calls(server: Server) -> Calls:
    return Calls(server)


async def test_a_window_takes_its_requests_and_units_and_no_more(calls: Calls) -> None:
    await calls.define(gpt=Limit(requests_per_minute=3, units_per_minute=100))
    await calls.hold("a", "b", "c")
    await calls.grant(calls.call("a", units=60))
    waits = await calls.wait(calls.call("b", units=41))
    assert (waits.limit, waits.why, waits.rest_ms) == ("gpt", "window", 0)
    assert 0 < waits.ask_ms <= 2_000
    await calls.limits.leave("q", calls.call("b"))
    await calls.grant(calls.call("c", units=40))
    view = await calls.view()
    assert (view.requests, view.units, view.waiting) == (2, 100, 0)
    await calls.pass_time(61)
    await calls.grant(calls.call("b", units=100))


async def test_a_call_that_is_sent_again_counts_once_and_a_rerun_is_another_call(calls: Calls) -> None:
    await calls.define(gpt=Limit(requests_per_minute=3))
    await calls.hold("a")
    assert (await calls.grant(calls.call("a"))).epochs == (await calls.grant(calls.call("a"))).epochs == {"gpt": 0}
    await calls.grant(calls.call("a", number=7))
    assert (await calls.view()).requests == 2


async def test_what_a_call_did_not_take_is_free_again_and_what_it_took_more_is_a_debt(calls: Calls) -> None:
    await calls.define(gpt=Limit(units_per_minute=100))
    await calls.hold("a", "b", "c")
    call = calls.call("a", units=100)
    granted = await calls.grant(call)
    await calls.settle(call, granted, 30)
    await calls.settle(call, granted, 30)
    other = calls.call("b", units=70)
    granted = await calls.grant(other)
    await calls.pass_time(61)
    await calls.engine.release_owner_leases(owner=OWNER, reason="killed")
    await calls.settle(other, granted, 170)  # the slowest call comes late, and its lease is lost
    view = await calls.view()
    assert (view.units, view.requests) == (100, 0)
    assert isinstance(await calls.reserve(calls.call("c", units=1)), Waits)


async def test_a_provider_that_counts_requests_gives_nothing_back(calls: Calls) -> None:
    await calls.define(gpt=Limit(units_per_minute=100, refund=False))
    await calls.hold("a", "b")
    call = calls.call("a", units=100)
    await calls.settle(call, await calls.grant(call), 30)
    await calls.wait(calls.call("b", units=1))


async def test_units_of_a_dead_worker_count_and_its_place_comes_back(calls: Calls) -> None:
    await calls.define(gpt=Limit(units_per_minute=100, concurrent=1))
    await calls.hold("a", "b")
    await calls.grant(calls.call("a", units=40))
    assert (await calls.wait(calls.call("b", units=40))).why == "concurrent"
    await calls.engine.release_owner_leases(owner=OWNER, reason="killed")
    await calls.engine.finish_and_claim(seq=9, owner="v/1", want=1, is_idle=True)
    again = LimitCall("v/1", 1, "a", ["gpt"], Level.NORMAL, units=40)
    await calls.grant(again)
    view = await calls.view()
    assert (view.running, view.units) == (1, 80)


async def test_burst_spreads_calls_over_the_minute(calls: Calls) -> None:
    await calls.define(gpt=Limit(requests_per_minute=60, burst=2))
    names = [f"job-{number}" for number in range(4)]
    await calls.hold(*names)
    await calls.grant(calls.call(names[0]))
    await calls.grant(calls.call(names[1]))
    waits = await calls.wait(calls.call(names[2]))
    assert waits.why == "pace"
    assert waits.ask_ms <= 1_000
    await calls.pass_time(1)
    await calls.grant(calls.call(names[2]))
    assert (await calls.wait(calls.call(names[3]))).why == "pace"


async def test_the_line_is_ordered_by_level_then_tenants_in_turn_then_arrival(calls: Calls) -> None:
    await calls.define(gpt=Limit(requests_per_minute=3))
    await calls.hold("first", "a1", "a2", "a3", "a4", "b1", "b2", "z")
    for number in range(3):
        await calls.grant(calls.call("first", number=100 + number))
    line = [
        *(calls.call(name, tenant="a") for name in ("a1", "a2", "a3", "a4")),
        *(calls.call(name, tenant="b") for name in ("b1", "b2")),
        calls.call("z", tenant="a", level=Level.URGENT),
    ]
    for call in line:
        await calls.wait(call)
    # After two windows those that have waited longest are first, whatever their level and tenant.
    assert await calls.turns(line) == [{"z", "a1", "b1"}, {"a2", "a3", "a4"}, {"b2"}]


async def test_a_large_call_is_not_overtaken(calls: Calls) -> None:
    await calls.define(gpt=Limit(units_per_minute=100))
    await calls.hold("first", "large", "small")
    await calls.grant(calls.call("first", units=50))
    await calls.wait(calls.call("large", units=90))
    assert (await calls.wait(calls.call("small", units=10))).why == "window"
    await calls.pass_time(61)
    await calls.grant(calls.call("large", units=90))
    await calls.grant(calls.call("small", units=10))


async def test_a_small_call_passes_if_the_large_one_loses_nothing(calls: Calls) -> None:
    await calls.define(gpt=Limit(units_per_minute=100, concurrent=2))
    await calls.hold("first", "second", "large", "small")
    await calls.grant(calls.call("first", units=10))
    second = calls.call("second", units=10)
    granted = await calls.grant(second)
    await calls.wait(calls.call("large", units=50))
    await calls.wait(calls.call("small", units=5))
    await calls.settle(second, granted)
    assert (await calls.wait(calls.call("small", units=5))).why == "concurrent"
    await calls.grant(calls.call("large", units=50))


async def test_a_ticket_that_nobody_asks_for_lets_others_pass_and_keeps_its_place(calls: Calls) -> None:
    await calls.define(gpt=Limit(requests_per_minute=1))
    await calls.hold("first", "idle", "next")
    await calls.grant(calls.call("first"))
    await calls.wait(calls.call("idle"))
    await calls.pass_time(61)
    await calls.wait(calls.call("next"))
    key, ticket = f"{LIMIT_LINE}gpt", "q|0|idle"
    raw = await field(calls.server.redis, key, ticket)
    assert raw is not None
    level, arrived, asked, rest = raw.decode().split("|", 3)
    late = f"{level}|{arrived}|{int(asked) - 5_001}|{rest}"
    await awaited(calls.server.redis.hset(key, ticket, late))
    await calls.grant(calls.call("next"))
    await calls.wait(calls.call("idle"))
    await calls.wait(calls.call("first", number=90))
    await calls.pass_time(61)
    await calls.wait(calls.call("first", number=90))
    await calls.grant(calls.call("idle"))


async def test_tickets_of_a_dead_worker_leave_the_line(calls: Calls) -> None:
    await calls.define(gpt=Limit(requests_per_minute=1))
    await calls.hold("first", "ghost")
    await calls.grant(calls.call("first"))
    await calls.wait(calls.call("ghost"))
    assert await calls.limits.count_waiting("q", ["gpt", "none"]) == [1, 0]
    await calls.engine.release_owner_leases(owner=OWNER, reason="killed")
    assert await calls.limits.count_waiting("q", ["gpt"]) == [0]
    assert await calls.server.redis.exists(f"{LIMIT_LINE}gpt") == 0


async def test_whoever_frees_a_place_wakes_the_next(calls: Calls) -> None:
    await calls.define(gpt=Limit(concurrent=1))
    await calls.hold("first", "next")
    first = calls.call("first")
    granted = await calls.grant(first)
    await calls.wait(calls.call("next"))
    await calls.settle(first, granted)
    news = await awaited(calls.server.redis.lrange(f"q:wake:{OWNER}", 0, -1))
    assert news == [b"next"]


async def test_a_429_rests_the_limit_once_then_one_probe_then_more_and_more(calls: Calls) -> None:
    await calls.define(gpt=Limit(requests_per_minute=100))
    names = [f"job-{number}" for number in range(8)]
    await calls.hold(*names)
    early, late = calls.call(names[0]), calls.call(names[1])
    granted, other = await calls.grant(early), await calls.grant(late)
    until = await calls.refuse(early, granted)
    waits = await calls.wait(calls.call(names[2]))
    assert (waits.why, waits.rest_ms, waits.rest_why) == ("rest", until, "429")
    assert await calls.refuse(late, other, rest_s=500) == until  # it began before the rest
    await calls.pass_time(20)
    probe = calls.call(names[2])
    granted = await calls.grant(probe)
    assert (await calls.wait(calls.call(names[3]))).why == "probe"
    await calls.settle(probe, granted)
    await calls.grant(calls.call(names[3]))
    assert (await calls.wait(calls.call(names[4]))).why == "ramp"
    await calls.pass_time(1)
    for name in names[4:6]:
        await calls.grant(calls.call(name))
    assert (await calls.wait(calls.call(names[6]))).why == "ramp"
    await calls.pass_time(10)
    await calls.grant(calls.call(names[6]))
    assert (await calls.view()).rests == 1


async def test_a_probe_of_a_dead_worker_does_not_block(calls: Calls) -> None:
    await calls.define(gpt=Limit(requests_per_minute=100))
    await calls.hold("a")
    call = calls.call("a")
    await calls.refuse(call, await calls.grant(call), rest_s=1)
    await calls.pass_time(1)
    await calls.grant(calls.call("a", number=50))
    await calls.engine.release_owner_leases(owner=OWNER, reason="killed")
    await calls.engine.finish_and_claim(seq=9, owner="v/1", want=1, is_idle=True)
    await calls.grant(LimitCall("v/1", 1, "a", ["gpt"], Level.NORMAL, units=1))


async def test_a_probe_that_takes_long_blocks_for_five_seconds(calls: Calls) -> None:
    await calls.define(gpt=Limit(requests_per_minute=100))
    await calls.hold("a", "b", "c")
    call = calls.call("a")
    await calls.refuse(call, await calls.grant(call), rest_s=1)
    await calls.pass_time(1)
    await calls.grant(calls.call("b"))
    assert (await calls.wait(calls.call("c"))).why == "probe"
    await calls.pass_time(5)
    await calls.grant(calls.call("c"))


async def test_rests_without_a_time_get_longer(calls: Calls) -> None:
    await calls.define(gpt=Limit(requests_per_minute=100))
    await calls.hold("a")
    lengths = []
    for number in range(4):
        call = calls.call("a", number=number)
        granted = await calls.grant(call)
        lengths.append(round((await calls.refuse(call, granted, rest_s=None) - granted.now_ms) / 1000))
        await calls.pass_time(lengths[-1] + 0.2)
    assert lengths == [1, 2, 4, 8]


async def test_several_limits_are_reserved_all_or_none(calls: Calls) -> None:
    await calls.define(a=Limit(requests_per_minute=5), b=Limit(requests_per_minute=1))
    await calls.hold("x", "y")
    await calls.grant(calls.call("x", "a", "b"))
    assert (await calls.wait(calls.call("y", "a", "b"))).limit == "b"
    views = {view.name: view for view in await calls.limits.view()}
    assert (views["a"].requests, views["a"].waiting, views["b"].waiting) == (1, 0, 1)


async def test_calls_that_share_two_limits_never_wait_for_one_another(calls: Calls) -> None:
    await calls.define(a=Limit(concurrent=1), b=Limit(concurrent=1))
    await calls.hold("a", "b", "x", "y")
    one, two = calls.call("a", "a"), calls.call("b", "b")
    first, second = await calls.grant(one), await calls.grant(two)
    await calls.wait(calls.call("x", "a", "b"))
    await calls.settle(one, first)
    assert (await calls.wait(calls.call("x", "a", "b"))).limit == "b"
    await calls.wait(calls.call("y", "a", "b"))
    await calls.settle(two, second)
    granted = await calls.grant(calls.call("x", "a", "b"))
    await calls.settle(calls.call("x", "a", "b"), granted)
    await calls.grant(calls.call("y", "a", "b"))


async def test_each_tenant_has_a_limit_for_itself(calls: Calls) -> None:
    await calls.define(gpt=Limit(requests_per_minute=1, per="tenant"))
    await calls.hold("a1", "a2", "b1")
    await calls.grant(calls.call("a1", tenant="a"))
    await calls.wait(calls.call("a2", tenant="a"))
    await calls.grant(calls.call("b1", tenant="b"))
    assert await calls.limits.count_waiting("q", ["gpt"]) == [1]


async def test_a_call_larger_than_the_limit_or_without_a_limit_is_refused_at_once(calls: Calls) -> None:
    await calls.define(gpt=Limit(units_per_minute=100))
    await calls.hold("a")
    assert await calls.reserve(calls.call("a", units=101)) == Refused("gpt", 100)
    assert await calls.reserve(calls.call("a", "none")) == Refused("none")


async def test_units_are_learned_from_ten_calls_on(calls: Calls) -> None:
    await calls.define(gpt=Limit(units_per_minute=1_000_000, default_units=700, headroom_percent=10))
    await calls.hold("a")
    for number in range(10):
        call = calls.call("a", units=None, number=number)
        granted = await calls.grant(call)
        assert granted.units == {"gpt": 700}
        await calls.settle(call, granted, 2_000 if number == 9 else 1_000)
    learned = (await calls.grant(calls.call("a", units=None, number=99))).units["gpt"]
    assert 1_100 <= learned <= 1_100 * 2 ** (1 / 8) + 1  # nine of ten took 1,000


async def test_a_clock_that_has_gone_back_stops_nothing(calls: Calls) -> None:
    await calls.define(gpt=Limit(requests_per_minute=2, units_per_minute=100))
    await calls.hold("a", "b")
    await calls.grant(calls.call("a", units=10))
    await calls.pass_time(-3_600)  # what the limit has counted is an hour ahead now
    await calls.grant(calls.call("b", units=10))
    view = await calls.view()
    assert (view.requests, view.units) == (2, 20)
    await calls.pass_time(61)
    await calls.grant(calls.call("a", units=10, number=80))


async def test_definitions_of_a_source_replace_its_older_ones(calls: Calls) -> None:
    await calls.define(a=Limit(concurrent=1), b=Limit(concurrent=1))
    await calls.limits.define("q", "other", {"c": Limit(concurrent=2, refund=False)})
    assert await calls.limits.define("q", "test", {"b": Limit(concurrent=3)}) == ["a"]
    views = await calls.limits.view()
    assert [(view.name, view.source, view.limit.concurrent) for view in views] == [("b", "test", 3), ("c", "other", 2)]


async def test_a_limit_that_is_not_used_leaves_nothing_for_ever(calls: Calls) -> None:
    await calls.define(gpt=Limit(concurrent=1))
    await calls.hold("a")
    call = calls.call("a")
    await calls.settle(call, await calls.grant(call))
    assert await awaited(calls.server.redis.pttl(f"{LIMIT}gpt")) > 60 * MINUTE_MS
