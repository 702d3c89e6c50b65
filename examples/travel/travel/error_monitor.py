"""Agent that gets a job for each dead letter of the other agents, and writes an incident for people."""

import json
import re
from typing import Any

from agentqueue import Agent, Context
from travel.files import data_folder, write_once
from travel.payloads import DeadJob

agent = Agent("error-monitor")


@agent.job(name="dead-letter", timeout=30)
def report_incident(ctx: Context, letter: DeadJob) -> dict[str, Any]:
    """Write the incident once per dead letter. Its file has this job's ID, which is the same on a rerun."""
    path = data_folder() / "incidents" / f"{re.sub(r'[^A-Za-z0-9-]', '-', ctx.id)}.txt"
    write_once(path, describe(letter).encode())
    ctx.log.warning("incident", job=letter.id, queue=letter.queue, reason=letter.reason)
    return {"job": letter.id, "queue": letter.queue, "reason": letter.reason, "incident": path.name}


def describe(letter: DeadJob) -> str:
    """Return the text of the incident."""
    whose = letter.data if isinstance(letter.data, dict) else {}
    lines = [
        f"Job {letter.name} ({letter.id}) of {letter.queue} is dead: {letter.reason}.",
        f"Request: {whose.get('requestId', 'unknown')}, client: {whose.get('userId', 'unknown')}.",
        f"Cause: {letter.error or 'unknown'}",
        f"Attempts: {letter.attempts}. Data: {json.dumps(letter.data, ensure_ascii=False)[:1_000]}",
        f"To try again: agentqueue dead replay {letter.queue} {letter.id}",
    ]
    return "\n".join(lines) + "\n"
