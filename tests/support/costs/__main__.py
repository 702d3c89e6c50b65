"""Measure costs and rewrite their records: `python -m tests.support.costs [CASE...]`, or `make costs` for all cases."""

import sys

from tests.support.costs import record
from tests.support.costs.program import CASES, Costs
from tests.support.debian import ensure_packages
from tests.support.servers import run_server

ROUNDS = 2
"""Measurements of each case. The least figures are recorded, since load makes figures rise."""


def main() -> None:
    before = record.read() if record.PATH.exists() else {}
    ensure_packages("redis-server")
    found: record.Record = {kind: dict(before.get(kind, {})) for kind in ("valkey", "redis")}
    for kind in found:
        for case in sys.argv[1:] or CASES:
            costs: Costs = {}
            with run_server(kind) as server:
                for _ in range(ROUNDS):
                    costs = record.least(record.measure(case, server.url), costs)
            found[kind][case] = costs
            for name, value in costs.items():
                was = before.get(kind, {}).get(case, {}).get(name)
                print(f"{kind:6} {case:12} {name:12} {'' if was is None else was:>10} {value:>10}", flush=True)
    record.write(found)


if __name__ == "__main__":
    main()
