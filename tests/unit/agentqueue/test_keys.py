"""The names of a queue's keys, which the scripts get in one order."""

import pytest

from agentqueue.errors import InvalidName
from agentqueue.keys import KeySpace, Level, check_signal_name
from agentqueue.store.scripts import queue_keys


def test_the_scripts_get_the_keys_that_the_key_space_names() -> None:
    keys = KeySpace("flights")
    given = queue_keys("flights")
    assert [given[level - 1] for level in Level] == [keys.level(level) for level in Level]
    named = {4: keys.dead, 5: keys.done, 6: keys.paused, 8: keys.wake, 9: keys.stats, 10: keys.workers, 14: keys.drain}
    assert {place: given[place] for place in named} == named


def test_keys_that_scripts_make_themselves_are_named_alike() -> None:
    keys = KeySpace("flights")
    assert keys.stats_of_minute(7) == f"{keys.stats}:7"
    assert keys.fingerprint("ab12") == f"{keys.fingerprints}:ab12"
    assert keys.fingerprints == f"{keys.dead}:fp"
    assert keys.suspended("signal") == "flights:suspended:signal"
    assert keys.wake_of("w/1") == f"{keys.wake}:w/1"
    named = [keys.schedules, keys.ticks, keys.registration, keys.templates]
    assert named == [f"flights:{part}" for part in ("schedules", "ticks", "registration", "registration:templates")]


@pytest.mark.parametrize("name", ["approval", "a.b:c-d_1", "7", "x" * 100])
def test_a_name_of_a_signal_is_accepted(name: str) -> None:
    assert check_signal_name(name) == name


@pytest.mark.parametrize("name", ["", "a b", "ä", "-a", "a#1", "x" * 101, None])
def test_another_name_of_a_signal_is_refused(name: str) -> None:
    with pytest.raises(InvalidName, match="must have 1 to 100 characters"):
        check_signal_name(name)
