"""Sizes of runs from the command line."""

import pytest
from benchmarks.throughput.__main__ import sized
from benchmarks.throughput.measures import Scale


def test_a_size_replaces_the_default_in_the_type_of_its_field() -> None:
    scale = sized(Scale(seconds=0.5), ["recovery_s=20", "samples=50"])
    assert scale == Scale(seconds=0.5, recovery_s=20.0, samples=50)
    assert type(scale.samples) is int


def test_an_unknown_size_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(SystemExit, match="no such size: 'recovery'; known: seconds, most, "):
        sized(Scale(), ["recovery=20"])
