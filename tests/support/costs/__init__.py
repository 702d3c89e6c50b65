"""What one job costs, in counts that do not depend on the machine. `python -m tests.support.costs` rewrites the record.

tests/integration/test_costs.py compares every change with the record, tests/integration/costs.json.
"""
