"""The status, the conditions and the events of an AgentQueue."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentqueue.spec import AgentQueue, AgentQueueStatus, ConditionType, ResolvedQueue, resolve
from agentqueue_operator.controller.status.api_errors import explain_api_error
from agentqueue_operator.controller.status.conditions import (
    AgentFacts,
    ConsoleFacts,
    Facts,
    RedisFacts,
    blocked,
    is_worth_writing,
    paused,
    status_of,
    unreconciled_status,
)
from agentqueue_operator.controller.status.events import events_between
from agentqueue_operator.controller.status.pod_problems import ORDER
from agentqueue_operator.controller.status.reasons import Problem, Reason
from agentqueue_operator.resources.plan import Key
from agentqueue_operator.resources.render import console_name
from agentqueue_operator.resources.render.console import console_access
from tests.support import resources

Object = dict[str, Any]
NOW, LATER = "2026-01-01T12:00:00Z", "2026-01-01T12:05:00Z"
REDIS = RedisFacts(endpoint="r.n.svc:6379", secret="r", answers=True)
PULL, FULL = Problem(Reason.IMAGE_PULL_FAILED, "a:2: not found"), Problem(Reason.UNSCHEDULABLE, "0/1 nodes")
CRASHING = Problem(Reason.CRASH_LOOPING, "container worker ended with exit code 1")


def agent(name: str = "a", **given: Any) -> AgentFacts:
    fine = AgentFacts(name=name, queue=name, deployment=f"q-{name}", made=True, desired=1, ready=1, needed=1, read=True)
    return replace(fine, **given)


def facts(*agents: AgentFacts, **given: Any) -> Facts:
    return replace(Facts(generation=3, redis=REDIS, agents=agents or (agent(),)), **given)


def conditions(given: Facts) -> dict[str, tuple[str, str]]:
    status = status_of(given, None, now=NOW)
    AgentQueueStatus.model_validate(status)
    return {one["type"]: (one["status"], one["reason"]) for one in status["conditions"]}


def message(given: Facts, kind: str) -> str:
    status = status_of(given, None, now=NOW)
    return str(next(one["message"] for one in status["conditions"] if one["type"] == kind))


def test_everything_is_ready() -> None:
    assert conditions(facts()) == {
        "Ready": ("True", "Available"),
        "Reconciling": ("False", "Ready"),
        "Stalled": ("False", "ProgressPossible"),
        "Progressing": ("False", "Stable"),
        "RedisReady": ("True", "Available"),
        "MetricsAvailable": ("True", "QueuesReadable"),
        "ScalingActive": ("True", "QueueDriven"),
        "Paused": ("False", "NotPaused"),
        "ConfigurationWarning": ("False", "NoWarnings"),
    }


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param(
            facts(problems=(Problem(Reason.FOREIGN_OBJECT, "Service r is there"),)),
            {"Ready": ("False", "ForeignObject"), "ConfigurationWarning": ("True", "ForeignObject")},
            id="hurdle",
        ),
        pytest.param(
            facts(agent(desired=0, ready=0), suspended=True),
            {
                "Ready": ("True", "Suspended"),
                "Reconciling": ("False", "Ready"),
                "Paused": ("True", "Suspended"),
                "ScalingActive": ("False", "Suspended"),
            },
            id="suspended",
        ),
        pytest.param(
            facts(agent(read=False), redis=RedisFacts(starting=Problem(Reason.REDIS_STARTING, "soon"))),
            {
                "Ready": ("False", "RedisStarting"),
                "Progressing": ("True", "RedisStarting"),
                "RedisReady": ("False", "RedisStarting"),
                "MetricsAvailable": ("False", "RedisStarting"),
                "ScalingActive": ("False", "RedisStarting"),
            },
            id="redis-starts",
        ),
        pytest.param(
            facts(agent(read=False), redis=RedisFacts(problem=Problem(Reason.REDIS_WRONG_PASSWORD, "WRONGPASS"))),
            {
                "Ready": ("False", "RedisWrongPassword"),
                "Progressing": ("False", "RedisWrongPassword"),
                "RedisReady": ("False", "RedisWrongPassword"),
                "MetricsAvailable": ("False", "RedisWrongPassword"),
            },
            id="redis-in-trouble",
        ),
        pytest.param(
            facts(redis=replace(REDIS, warning=Problem(Reason.INSECURE_TLS, "anybody may pose"))),
            {"RedisReady": ("True", "InsecureTLS"), "Ready": ("True", "Available")},
            id="redis-with-a-note",
        ),
        pytest.param(
            facts(agent(read=False)),
            {"MetricsAvailable": ("False", "Unknown"), "ScalingActive": ("False", "Unknown")},
            id="queue-not-read",
        ),
        pytest.param(
            facts(agent(ready=0, problem=CRASHING)),
            {"Ready": ("False", "CrashLooping"), "Progressing": ("False", "CrashLooping")},
            id="no-worker-runs",
        ),
        pytest.param(
            facts(agent(ready=0, needed=0, problem=CRASHING)),
            {"Ready": ("False", "CrashLooping")},
            id="no-worker-runs-though-none-must",
        ),
        pytest.param(
            facts(agent(desired=3, ready=2, needed=1, problem=CRASHING)),
            {"Ready": ("True", "Available"), "Progressing": ("False", "CrashLooping")},
            id="some-run",
        ),
        pytest.param(
            facts(agent(desired=0, ready=0, problem=CRASHING)), {"Ready": ("True", "Available")}, id="none-is-wanted"
        ),
        pytest.param(
            facts(agent(ready=0)),
            {"Ready": ("False", "WorkersStarting"), "Progressing": ("True", "WorkersStarting")},
            id="workers-start",
        ),
        pytest.param(facts(agent(made=False)), {"Ready": ("False", "WorkersStarting")}, id="not-made"),
        pytest.param(
            facts(agent(rolling_out=True)),
            {
                "Ready": ("False", "RollingOut"),
                "Reconciling": ("True", "RollingOut"),
                "Stalled": ("False", "ProgressPossible"),
            },
            id="old-workers-serve-and-new-ones-start",
        ),
        pytest.param(
            facts(agent(rolling_out=True, problem=PULL, newest_problem=PULL)),
            {
                "Ready": ("False", "ImagePullFailed"),
                "Reconciling": ("False", "ImagePullFailed"),
                "Stalled": ("True", "ImagePullFailed"),
            },
            id="old-workers-serve-and-the-new-image-is-not-there",
        ),
        pytest.param(
            facts(agent(rolling_out=True, ready=0, problem=CRASHING)),
            {"Ready": ("False", "RollingOut"), "Reconciling": ("True", "RollingOut")},
            id="old-workers-crash-and-the-new-version-may-mend-it",
        ),
        pytest.param(
            facts(agent(rolling_out=True, ready=0, newest_problem=FULL)),
            {"Ready": ("False", "Unschedulable"), "Reconciling": ("True", "Unschedulable")},
            id="no-node-has-room-yet",
        ),
        pytest.param(
            facts(agent(rolling_out=True, ready=0, newest_problem=replace(FULL, lasting=True))),
            {"Ready": ("False", "Unschedulable"), "Stalled": ("True", "Unschedulable")},
            id="no-node-has-room-for-long",
        ),
        pytest.param(
            facts(agent(rolling_out=True, desired=0, ready=0, needed=0, newest_problem=PULL)),
            {"Ready": ("False", "RollingOut"), "Stalled": ("False", "ProgressPossible")},
            id="old-workers-go-and-none-is-wanted",
        ),
        pytest.param(
            facts(agent(desired=0, ready=0, needed=0)), {"Ready": ("True", "Available")}, id="at-zero-without-jobs"
        ),
        pytest.param(
            facts(agent(desired=1, ready=0, needed=0, problem=PULL)),
            {"Ready": ("False", "ImagePullFailed"), "Stalled": ("True", "ImagePullFailed")},
            id="the-first-job-finds-that-the-image-is-not-there",
        ),
        pytest.param(
            facts(agent(desired=3, ready=2, needed=1, problem=PULL)),
            {"Ready": ("True", "Available"), "Stalled": ("False", "ProgressPossible")},
            id="more-can't-start-and-enough-serve",
        ),
        pytest.param(
            facts(redis=replace(REDIS, rolling_out=True)),
            {"Ready": ("False", "RollingOut"), "Reconciling": ("True", "RollingOut")},
            id="redis-is-replaced",
        ),
        pytest.param(
            facts(redis=RedisFacts(problem=PULL)),
            {"Ready": ("False", "ImagePullFailed"), "Stalled": ("True", "ImagePullFailed")},
            id="redis's-image-is-not-there",
        ),
        pytest.param(
            facts(redis=RedisFacts(problem=CRASHING, rolling_out=True)),
            {"Ready": ("False", "CrashLooping"), "Reconciling": ("True", "CrashLooping")},
            id="redis-crashes-and-the-new-version-may-mend-it",
        ),
        pytest.param(
            facts(redis=RedisFacts(problem=Problem(Reason.REDIS_UNREACHABLE, "no answer"))),
            {"Ready": ("False", "RedisUnreachable"), "Reconciling": ("True", "RedisUnreachable")},
            id="redis-may-come-back",
        ),
        pytest.param(
            facts(pending=True),
            {"Ready": ("False", "ObjectsPending"), "Reconciling": ("True", "ObjectsPending")},
            id="an-object-is-to-be-applied",
        ),
        pytest.param(
            facts(agent(desired=1, ready=0, needed=0, registering=True)),
            {
                "Ready": ("False", "Registering"),
                "Reconciling": ("True", "Registering"),
                "Progressing": ("True", "Registering"),
                "Stalled": ("False", "ProgressPossible"),
            },
            id="a-new-version-registers",
        ),
        pytest.param(
            facts(
                agent(
                    desired=1,
                    ready=0,
                    needed=0,
                    registering=True,
                    problem=Problem(Reason.HANDLER_NOT_IMPORTED, "handler m:agent: SyntaxError"),
                )
            ),
            {"Ready": ("False", "HandlerNotImported"), "Stalled": ("True", "HandlerNotImported")},
            id="a-new-version-cannot-be-imported",
        ),
        pytest.param(
            facts(problems=(Problem(Reason.OBJECT_INVALID, "no such field"),)),
            {"Ready": ("False", "ObjectInvalid"), "Stalled": ("True", "ObjectInvalid")},
            id="an-object-is-refused",
        ),
        pytest.param(
            facts(problems=(Problem(Reason.QUOTA_EXCEEDED, "few"),)),
            {"Ready": ("False", "QuotaExceeded"), "Reconciling": ("True", "QuotaExceeded")},
            id="quota-may-become-free",
        ),
        pytest.param(
            facts(console=ConsoleFacts(rolling_out=True)),
            {"Ready": ("False", "RollingOut"), "Reconciling": ("True", "RollingOut")},
            id="the-console-is-replaced",
        ),
        pytest.param(
            facts(console=ConsoleFacts(rolling_out=True, problem=PULL, newest_problem=PULL)),
            {"Ready": ("False", "ImagePullFailed"), "Stalled": ("True", "ImagePullFailed")},
            id="the-console's-image-is-not-there",
        ),
        pytest.param(
            facts(console=ConsoleFacts(rolling_out=True, newest_problem=FULL)),
            {"Ready": ("False", "Unschedulable"), "Reconciling": ("True", "Unschedulable")},
            id="no-room-for-the-console-yet",
        ),
        pytest.param(
            facts(console=ConsoleFacts(problem=CRASHING)),
            {"Ready": ("True", "Available"), "ConfigurationWarning": ("True", "CrashLooping")},
            id="a-console-that-ran-fails",
        ),
        pytest.param(facts(console=ConsoleFacts()), {"Ready": ("True", "Available")}, id="the-console-runs"),
        pytest.param(
            facts(suspended=True, redis=RedisFacts(problem=PULL)),
            {"Ready": ("False", "ImagePullFailed"), "Stalled": ("True", "ImagePullFailed")},
            id="suspended-and-redis-can't-start",
        ),
        pytest.param(
            facts(agent(desired=4, ready=1)),
            {"Ready": ("True", "Available"), "Progressing": ("True", "Scaling")},
            id="scaling",
        ),
        pytest.param(facts(agent(desired=1, ready=4)), {"Progressing": ("True", "Scaling")}, id="scale-in-waits"),
        pytest.param(facts(agent(rolling_out=True)), {"Progressing": ("True", "RollingOut")}, id="rolling-out"),
        pytest.param(
            facts(agent(auto=False, desired=0, ready=0, waiting=2)),
            {
                "Ready": ("True", "Available"),
                "ConfigurationWarning": ("True", "NoWorkers"),
                "ScalingActive": ("False", "NoAutoScaling"),
            },
            id="jobs-wait-and-nobody-comes",
        ),
        pytest.param(
            facts(agent(desired=2, problem=Problem(Reason.UNSCHEDULABLE, "0/1 nodes"))),
            {"ScalingActive": ("False", "Unschedulable"), "Ready": ("True", "Available")},
            id="no-room-for-more",
        ),
        pytest.param(
            facts(problems=(Problem(Reason.WATCHES_DOWN, "pods: forbidden", blocking=False),)),
            {"ConfigurationWarning": ("True", "WatchesDown"), "Ready": ("True", "Available")},
            id="warning",
        ),
    ],
)
def test_conditions(given: Facts, expected: dict[str, tuple[str, str]]) -> None:
    found = conditions(given)
    assert {kind: found[kind] for kind in expected} == expected


PROBLEMS = st.none() | st.builds(Problem, st.sampled_from(ORDER), st.just("x"), lasting=st.booleans())
AGENTS = st.builds(
    agent,
    made=st.booleans(),
    desired=st.integers(0, 2),
    ready=st.integers(0, 2),
    needed=st.integers(0, 2),
    read=st.booleans(),
    auto=st.booleans(),
    waiting=st.integers(0, 1),
    rolling_out=st.booleans(),
    problem=PROBLEMS,
    newest_problem=PROBLEMS,
)
CONSOLES = st.builds(ConsoleFacts, rolling_out=st.booleans(), problem=PROBLEMS, newest_problem=PROBLEMS)
REDISES = st.builds(RedisFacts, rolling_out=st.booleans(), problem=PROBLEMS, starting=PROBLEMS)


@given(st.lists(AGENTS, min_size=1, max_size=2), REDISES, st.none() | CONSOLES, st.booleans(), st.booleans())
def test_ready_reconciling_and_stalled_exclude_each_other_and_one_always_holds(
    agents: list[AgentFacts], redis: RedisFacts, console: ConsoleFacts | None, pending: bool, suspended: bool
) -> None:
    """Then kstatus, which reads Reconciling first, and Argo CD's script, which reads Stalled first, agree."""
    named = [replace(one, name=f"a{number}") for number, one in enumerate(agents)]
    found = conditions(facts(*named, redis=redis, console=console, pending=pending, suspended=suspended))
    holds = [kind for kind in ("Ready", "Reconciling", "Stalled") if found[kind][0] == "True"]
    assert len(holds) == 1


def test_messages_name_the_problem_and_its_remedy() -> None:
    given = facts(agent(ready=0, problem=replace(CRASHING, more=2)))
    said = message(given, "Ready")
    assert said.startswith("agent a: container worker ended with exit code 1 (and 2 more pods).")
    assert said.endswith(Reason.CRASH_LOOPING.remedy)
    one = facts(agent(ready=0, problem=replace(CRASHING, more=1)))
    assert "(and 1 more pod)" in message(one, "Ready")
    assert message(facts(problems=(Problem(Reason.FORBIDDEN),)), "Ready").startswith("Forbidden.")
    both = facts(problems=(Problem(Reason.WATCHES_DOWN, "pods."), Problem(Reason.INSECURE_TLS, "x")))
    assert message(both, "ConfigurationWarning").count(". ") >= 3


def test_agents_whose_number_does_not_follow_their_queue_are_named() -> None:
    given = facts(agent("a"), agent("fixed", auto=False), agent("external", auto=False))
    said = message(given, "ScalingActive")
    assert said.startswith(
        "The number of workers follows the queues. Not autoscaled (scaling.mode is not Auto): fixed, external."
    )
    assert message(facts(agent("a")), "ScalingActive") == "The number of workers follows the queues."


@pytest.mark.parametrize(
    ("agents", "said"),
    [
        pytest.param([agent("long", ready=4)], "long: 3 of 4 workers finish their jobs and end.", id="fewer"),
        pytest.param([agent("long", ready=2)], "long: 1 of 2 workers finishes its jobs and ends.", id="one"),
        pytest.param([agent("long", desired=0)], "long: 1 of 1 worker finishes its jobs and ends.", id="the-last"),
        pytest.param(
            [agent("a", desired=2), agent("b", desired=3), agent("c", ready=3), agent("d", desired=0), agent("e")],
            "a, b: more workers start; c: 2 of 3 workers finish their jobs and end; "
            "d: 1 of 1 worker finishes its jobs and ends.",
            id="many",
        ),
    ],
)
def test_scaling_is_reported_by_agent(agents: list[AgentFacts], said: str) -> None:
    assert message(facts(*agents), "Progressing") == f"{said} {Reason.SCALING.remedy}"


def test_numbers_and_agents() -> None:
    last = {"time": NOW, "from": 0, "to": 1, "reason": "Backlog"}
    given = facts(
        agent("a", waiting=5, busy=2, oldest_s=7, dead=4, last_scale=last),
        agent("b", ready=0, desired=2, waiting=1, busy=3, dead=1),
    )
    status = status_of(given, None, now=NOW)
    AgentQueueStatus.model_validate(status)
    assert (status["readyAgents"], status["waiting"], status["active"]) == ("1/2", 6, 5)
    assert (status["pods"], status["deadLetters"]) == ("1/3", 5)
    assert status["redis"] == {"endpoint": "r.n.svc:6379", "secretName": "r"}
    first, second = status["agents"]
    assert (first["waiting"], first["busySlots"], first["oldestWaitingSeconds"], first["lastScale"]) == (5, 2, 7, last)
    assert (second["waiting"], second["busySlots"], second["deadLetters"]) == (1, 3, 1)
    assert "console" not in status


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param(agent(), "1/1", id="serves"),
        pytest.param(agent(desired=0, ready=0, needed=0), "1/1", id="at-zero-and-can-be-reached"),
        pytest.param(agent(desired=0, ready=0, needed=0, read=False), "0/1", id="redis-is-not-there-yet"),
        pytest.param(agent(desired=0, ready=0, needed=0, made=False), "0/1", id="not-made-yet"),
        pytest.param(agent(rolling_out=True), "0/1", id="rolls-out"),
        pytest.param(agent(desired=1, ready=0, needed=0, problem=PULL), "0/1", id="its-workers-can't-start"),
        pytest.param(agent(desired=4, ready=1), "1/1", id="scales"),
    ],
)
def test_which_agents_count_as_ready(given: AgentFacts, expected: str) -> None:
    assert status_of(facts(given), None, now=NOW)["readyAgents"] == expected


def test_an_agent_that_has_not_registered_is_not_ready_and_shows_its_jobs_later() -> None:
    before = status_of(facts(agent(registering=True)), None, now=NOW)
    after = status_of(facts(agent(registered_jobs=7)), before, now=NOW)
    assert (before["readyAgents"], after["readyAgents"]) == ("0/1", "1/1")
    assert "registeredJobs" not in before["agents"][0]
    assert after["agents"][0]["registeredJobs"] == 7


def test_the_status_shows_how_the_console_is_reached() -> None:
    queue = resolved(console={"service": {"port": 81}, "tokenSecretRef": {"name": "mine", "key": "t"}})
    given = facts(console=ConsoleFacts(access=console_access(queue, "n")))
    status = status_of(given, None, now=NOW)
    AgentQueueStatus.model_validate(status)
    name = console_name("q")
    assert status["console"] == {
        "service": name,
        "port": 81,
        "secretName": "mine",
        "secretKey": "t",
        "openWith": f"kubectl port-forward --namespace n service/{name} 8400:81",
    }
    generated = console_access(resolved(), "n")
    assert (generated["secretName"], generated["secretKey"], generated["port"]) == (name, "token", 80)


def resolved(**spec: Any) -> ResolvedQueue:
    return resolve(AgentQueue.model_validate(resources.resource("q", **spec)))


def test_numbers_that_could_not_be_read_are_absent_and_so_are_their_sums() -> None:
    status = status_of(facts(agent("a", waiting=5, busy=2), agent("b", read=False)), None, now=NOW)
    AgentQueueStatus.model_validate(status)
    assert {"waiting", "active"}.isdisjoint(status)
    assert "waiting" in status["agents"][0]
    assert "waiting" not in status["agents"][1]


def test_the_time_of_a_condition_is_kept_while_its_status_stays() -> None:
    old = status_of(facts(agent(ready=0)), None, now=NOW)
    new = status_of(facts(agent(ready=0, problem=CRASHING)), old, now=LATER)
    times = {one["type"]: one["lastTransitionTime"] for one in new["conditions"]}
    assert times["Ready"] == NOW  # another reason, the same status
    assert times["Progressing"] == LATER
    assert all(one["observedGeneration"] == 3 for one in new["conditions"])


def test_a_paused_status_keeps_the_other_conditions() -> None:
    old = status_of(facts(), None, now=NOW)
    status = unreconciled_status(old, paused(), generation=4, now=LATER)
    AgentQueueStatus.model_validate(status)
    found = {one["type"]: one for one in status["conditions"]}
    assert (found["Paused"]["status"], found["Paused"]["reason"]) == ("True", "PausedByAnnotation")
    assert found["Ready"] == next(one for one in old["conditions"] if one["type"] == "Ready")
    assert status["agents"] == old["agents"]
    # Nobody has looked at generation 4: it must not seem to be Ready.
    assert status["observedGeneration"] == 3


def test_a_generation_without_a_reconcile_is_not_observed() -> None:
    assert "observedGeneration" not in unreconciled_status(None, paused(), generation=1, now=NOW)
    assert unreconciled_status({"observedGeneration": -1}, paused(), generation=1, now=NOW)["observedGeneration"] == -1


def test_conditions_that_were_never_reported_are_unknown() -> None:
    status = unreconciled_status(
        None, blocked(Problem(Reason.INVALID_SPEC, "spec.agents: too many")), generation=1, now=NOW
    )
    AgentQueueStatus.model_validate(status)
    found = {one["type"]: (one["status"], one["reason"]) for one in status["conditions"]}
    assert found["Ready"] == ("False", "InvalidSpec")
    assert found["ConfigurationWarning"] == ("True", "InvalidSpec")
    assert (found["Stalled"], found["Reconciling"]) == (("True", "InvalidSpec"), ("False", "InvalidSpec"))
    assert status["observedGeneration"] == 1
    assert found["RedisReady"] == ("Unknown", "Unknown")
    assert set(found) == set(map(str, ConditionType))


# When to write


def test_an_unchanged_status_is_not_written() -> None:
    status = status_of(facts(agent(waiting=10)), None, now=NOW)
    assert is_worth_writing(None, status, since_s=0)
    assert not is_worth_writing(status, status_of(facts(agent(waiting=10)), status, now=LATER), since_s=1000)


@pytest.mark.parametrize(
    ("before", "after", "since_s", "expected"),
    [
        pytest.param({"waiting": 100}, {"waiting": 105}, 5, False, id="a-small-change"),
        pytest.param({"waiting": 100}, {"waiting": 105}, 30, True, id="a-small-change-after-a-while"),
        pytest.param({"waiting": 100}, {"waiting": 120}, 5, True, id="a-notable-change"),
        pytest.param({"waiting": 0}, {"waiting": 1}, 5, True, id="from-nothing"),
        pytest.param({"busy": 10}, {"busy": 8}, 5, True, id="busy-slots"),
        pytest.param({"dead": 100}, {"dead": 101}, 5, False, id="a-few-more-dead-letters"),
        pytest.param({"dead": 0}, {"dead": 1}, 5, True, id="the-first-dead-letter"),
        pytest.param({"oldest_s": 1}, {"oldest_s": 6}, 5, False, id="age-grows-by-itself"),
        pytest.param({"oldest_s": 1}, {"oldest_s": 6}, 31, True, id="age-after-a-while"),
        pytest.param({"ready": 1}, {"ready": 0}, 0, True, id="what-is-no-number-that-changes-all-the-time"),
    ],
)
def test_volatile_numbers(before: Object, after: Object, since_s: float, expected: bool) -> None:
    old, new = (status_of(facts(agent(**given)), None, now=NOW) for given in (before, after))
    assert is_worth_writing(old, new, since_s=since_s) is expected


# Events


def events(old: Object | None, new: Object) -> list[tuple[str, bool]]:
    return [(one.reason, one.warning) for one in events_between(old, new)]


def test_events_of_a_start() -> None:
    starting = status_of(
        facts(agent(ready=0, read=False), redis=RedisFacts(starting=Problem(Reason.REDIS_STARTING))), None, now=NOW
    )
    assert events(None, starting) == []
    up = status_of(facts(agent(last_scale={"time": NOW, "from": 0, "to": 1, "reason": "Backlog"})), starting, now=LATER)
    assert events(starting, up) == [("Scaled", False), ("Ready", False), ("RedisReady", False)]
    assert events(up, up) == []


def test_events_of_a_problem_and_its_end() -> None:
    well = status_of(facts(), None, now=NOW)
    wrong = status_of(facts(problems=(Problem(Reason.QUOTA_EXCEEDED, "x"),)), well, now=LATER)
    assert events(well, wrong) == [("QuotaExceeded", True)]
    assert events(wrong, well) == [("Ready", False), ("WarningGone", False)]
    suspended = status_of(facts(suspended=True), well, now=LATER)
    assert events(well, suspended) == [("Suspended", False)]
    assert events(suspended, status_of(facts(), suspended, now=LATER)) == [("Ready", False)]
    rolling = status_of(facts(agent(rolling_out=True)), well, now=LATER)
    assert events(well, rolling) == []
    assert events(rolling, status_of(facts(), rolling, now=LATER)) == [("Ready", False)]
    on_call = status_of(facts(redis=replace(REDIS, warning=Problem(Reason.INSECURE_TLS, "x"))), well, now=LATER)
    assert events(well, on_call) == []


# Refusals


@pytest.mark.parametrize(
    ("status", "said", "reason"),
    [
        (403, 'pods "x" is forbidden: exceeded quota: q', Reason.QUOTA_EXCEEDED),
        (403, 'deployments is forbidden: User "u" cannot create resource', Reason.FORBIDDEN),
        (403, "denied by policy", Reason.OBJECT_INVALID),
        (422, "spec.template: Invalid value", Reason.OBJECT_INVALID),
        (409, "uid mismatch", None),
        (403, "unable to create new content in namespace n because it is being terminated", None),
        (404, 'namespaces "n" not found', None),
        (404, "404 page not found", Reason.OBJECT_INVALID),
    ],
)
def test_api_errors_become_problems(status: int, said: str, reason: Reason | None) -> None:
    problem = explain_api_error(Key("Deployment", "d"), status, said)
    assert (problem.reason if problem else None) is reason
    if problem:
        assert problem.message == f"Deployment d is rejected: {said}"


def test_stalled_jobs_count_as_active_and_need_a_worker() -> None:
    stalled = agent(ready=0, desired=0, needed=0, stalled=2)
    status = status_of(facts(stalled), None, now=NOW)
    assert (status["waiting"], status["active"], status["agents"][0]["busySlots"]) == (0, 2, 0)
    assert conditions(facts(replace(stalled, auto=False)))["ConfigurationWarning"] == ("True", "NoWorkers")
