"""What a job costs: Redis commands, bytes on the network, calls of the program and lines of Lua, against the record.

These counts do not depend on the machine, so that no change makes jobs dearer unnoticed, however slow the machine is.
tests/integration/costs.json is the record.
"""

import pytest

from tests.support.costs import record
from tests.support.costs.program import CASES
from tests.support.servers import KINDS, run_server

HOW_TO_UPDATE = f"If the change is worth it, `{record.UPDATE}` rewrites {record.PATH.name}; say in the commit why."


@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.usefixtures("_redis_installed")
def test_a_job_costs_no_more_than_the_record(kind: str, case: str) -> None:
    recorded = record.read()[kind][case]
    with run_server(kind) as server:
        risen = record.measure_within(case, server.url, recorded)
    assert not risen, "\n".join([f"on {kind}:", *risen, HOW_TO_UPDATE])
