"""The figures of a race on a real cluster, from what was recorded."""

from benchmarks.scaling.race_record import Life, Race


def a_race() -> Race:
    """Two jobs: one ran at once; the other one was killed after 10 s, and ran again on another pod."""
    return Race(
        sent={"a": 0.0, "b": 10.0},
        started={"a": [(2.0, "p1")], "b": [(14.0, "p1"), (30.0, "p2")]},
        ended={"a": 12.0, "b": 50.0},
        pods={"p1": Life(0.0, 24.0), "p2": Life(26.0, 60.0)},
    )


def test_a_wait_lasts_until_the_first_start() -> None:
    figures = a_race().figures(100.0)
    assert (figures.mean_wait, figures.p50_wait, figures.p95_wait) == (3.0, 2.0, 4.0)


def test_waste_is_the_idle_time_of_pods_and_the_work_of_killed_jobs() -> None:
    figures = a_race().figures(100.0)
    assert figures.pod_seconds == 24 + 34
    assert figures.killed == 1
    assert figures.waste == (58 - 10 - 10 - 20) + 10
    assert figures.peak == 1


def test_what_has_not_ended_counts_until_now() -> None:
    race = Race(
        sent={"a": 0.0, "b": 5.0},
        started={"a": [(1.0, "p")]},
        pods={"p": Life(0.0)},
    )
    figures = race.figures(11.0)
    assert (figures.unfinished, figures.killed) == (2, 0)
    assert (figures.pod_seconds, figures.waste) == (11.0, 1.0)
    assert figures.p99_wait == 6.0


def test_a_run_that_lost_its_pod_is_lost_although_it_was_the_last() -> None:
    race = Race(sent={"a": 0.0}, started={"a": [(1.0, "p")]}, pods={"p": Life(0.0, 5.0)})
    figures = race.figures(20.0)
    assert (figures.killed, figures.waste) == (1, 1 + 4)


def test_a_race_without_jobs_has_figures() -> None:
    assert Race().figures(9.0).mean_wait == 0.0


def test_events_of_pods_and_lines_of_handlers_are_recorded() -> None:
    race = Race()
    race.see("ADDED", "p")
    race.see("MODIFIED", "p")
    assert race.present == 1
    race.note("start", "p", "a")
    race.note("end", "p", "a")
    race.see("DELETED", "p")
    assert race.present == 0
    assert race.ended["a"] >= race.started["a"][0][0]
