"""The tests of each rule that always holds. The check fails if one of these tests is renamed or removed."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
INTEGRATION = "tests/integration/"
RULES: dict[str, dict[str, tuple[str, ...]]] = {
    "1: no accepted job is lost": {
        f"{INTEGRATION}test_engine_model.py": ("test_the_engine_does_what_the_model_does",),
        f"{INTEGRATION}test_connection_cuts.py": (
            "test_a_cut_at_any_command_of_a_worker_loses_and_repeats_nothing",
            "test_a_producer_that_sends_again_after_a_cut_has_its_jobs_once",
        ),
        f"{INTEGRATION}test_kills.py": (
            "test_a_worker_killed_under_load_loses_nothing",
            "test_the_server_killed_under_load_loses_nothing_that_it_acknowledged",
            "test_the_server_and_the_workers_killed_at_once_lose_nothing",
            "test_ten_thousand_jobs_over_four_workers_with_random_kills",
        ),
        f"{INTEGRATION}test_clock_jumps.py": (
            "test_running_jobs_are_neither_taken_away_nor_run_again",
            "test_after_a_jump_back_new_jobs_run_and_older_ones_once_the_clock_has_caught_up",
        ),
        f"{INTEGRATION}test_unfit_servers.py": (
            "test_a_server_that_is_loading_is_waited_for",
            "test_a_primary_that_is_demoted_and_comes_back_has_the_outcomes_recorded",
            "test_a_password_that_changes_under_a_running_job_loses_nothing",
            "test_a_server_that_hangs_for_a_while_loses_nothing",
        ),
        f"{INTEGRATION}test_up.py": ("test_every_job_is_done_after_kill_9_and_up_again",),
    },
    "2: a result is recorded once": {
        f"{INTEGRATION}test_worker_jobs.py": (
            "test_a_worker_that_lost_its_lease_stops_the_job_and_records_nothing",
            "test_the_outcome_of_a_job_that_another_worker_has_is_dropped_and_counted",
        ),
        f"{INTEGRATION}test_connection_cuts.py": ("test_a_round_trip_that_comes_late_after_the_next_one_does_nothing",),
    },
    "3: only the handler's failures burn attempts": {
        f"{INTEGRATION}test_worker_jobs.py": ("test_a_job_whose_workers_died_three_times_is_dead_as_crashed",),
        f"{INTEGRATION}test_worker_process.py": (
            "test_a_job_longer_than_the_grace_period_goes_back_to_the_head_with_its_checkpoint",
        ),
    },
    "4: a crashed worker's jobs start again within 10 s": {
        f"{INTEGRATION}test_worker_process.py": (
            "test_a_killed_workers_jobs_start_again_within_10_s",
            "test_a_restarted_container_gives_back_what_it_held_at_once",
        ),
        f"{INTEGRATION}test_worker_jobs.py": ("test_a_handler_that_blocks_the_loop_keeps_its_lease",),
    },
    "5: SIGTERM drains": {
        f"{INTEGRATION}test_worker_process.py": (
            "test_a_job_shorter_than_the_grace_period_finishes_after_sigterm",
            "test_a_job_longer_than_the_grace_period_goes_back_to_the_head_with_its_checkpoint",
            "test_a_draining_job_is_told_and_may_end_in_time",
            "test_a_job_that_cant_be_stopped_is_handed_back_and_the_worker_exits",
            "test_a_drain_without_a_server_ends_in_time",
        ),
    },
    "6: strict priorities, and no job waits for ever": {
        f"{INTEGRATION}test_worker_queue.py": (
            "test_priorities_are_strict_among_ready_jobs",
            "test_jobs_over_their_levels_limit_get_one_start_in_four",
        ),
    },
    "7: scaling never removes a busy worker while an idle one exists": {
        "tests/unit/agentqueue_operator/controller/scaling/test_scale_in.py": (),
        "tests/unit/agentqueue_operator/autoscaling/test_decision_properties.py": (),
    },
    "8: arq's own clients and WorkerSettings work": {
        f"{INTEGRATION}test_arq_conformance.py": (),
        f"{INTEGRATION}test_arq_programs.py": (),
        f"{INTEGRATION}test_arq_cron.py": (),
        f"{INTEGRATION}test_arq_differences.py": (),
    },
    "9: payloads are JSON": {
        f"{INTEGRATION}test_worker_jobs.py": (
            "test_a_record_that_cant_be_read_is_dead_and_the_worker_goes_on",
            "test_a_refused_payload_is_dead_at_once_with_the_models_message",
        ),
        "tests/unit/agentqueue/test_arq_serializers.py": (),
    },
    "10: work per job is bounded": {
        f"{INTEGRATION}test_bounds.py": ("test_a_job_costs_no_more_commands_with_many_waiting",),
    },
    "11: a full Redis refuses new jobs and lets running ones finish": {
        f"{INTEGRATION}test_worker_queue.py": ("test_a_full_server_lets_running_jobs_finish_and_children_wait",),
        f"{INTEGRATION}test_unfit_servers.py": ("test_a_full_server_is_worked_off",),
    },
    "12: children are sent with their parent's success": {
        f"{INTEGRATION}test_worker_jobs.py": (
            "test_children_are_sent_with_their_parents_success",
            "test_a_failed_job_sends_no_children",
            "test_a_rerun_sends_nothing_twice",
        ),
    },
    "13: a completed step never runs again": {
        f"{INTEGRATION}test_steps.py": (
            "test_a_step_runs_once_over_failed_attempts",
            "test_a_once_step_that_was_cut_off_is_not_called_again",
            "test_a_worker_that_lost_its_lease_adds_no_step",
        ),
        f"{INTEGRATION}test_step_faults.py": (
            "test_a_cut_at_any_command_repeats_no_step",
            "test_an_agent_that_is_killed_five_times_repeats_one_call_a_kill_at_most",
        ),
    },
}
ROWS = [pytest.param(file, names, id=f"{rule} ({file})") for rule, by in RULES.items() for file, names in by.items()]


@pytest.mark.parametrize(("file", "names"), ROWS)
def test_each_rule_has_its_tests(file: str, names: tuple[str, ...]) -> None:
    tree = ast.parse((ROOT / file).read_text())
    found = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    assert set(names) <= found
    assert any(name.startswith("test_") for name in found)


def test_no_rule_is_left_out() -> None:
    assert [int(rule.partition(":")[0]) for rule in RULES] == list(range(1, 14))
