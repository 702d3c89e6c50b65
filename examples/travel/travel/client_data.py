"""Agent that keeps a small file per client: address, preferences, last trips."""

import json
from collections import Counter
from pathlib import Path
from typing import Any, Final

from agentqueue import Agent, Context
from travel.files import data_folder, locked, replace
from travel.payloads import TripRequest

LAST_TRIPS: Final = 20
"""Number of trips in a client's file. Older ones are removed, so that the file stays small."""

agent = Agent("client-data")


@agent.job(timeout=30)
def remember_trip(_ctx: Context, request: TripRequest) -> dict[str, Any]:
    """Add the trip to the client's file. It is a plain `def`, so it runs in a thread while it waits for the disk.

    Trips are kept by request, so that a rerun changes nothing.
    """
    folder = data_folder() / "clients"
    with locked(folder / f".{request.user_id}.lock"):
        path = folder / f"{request.user_id}.json"
        client = add_trip(_read(path), request)
        replace(path, json.dumps(client, indent=2, ensure_ascii=False).encode())
    return {"userId": request.user_id, "trips": len(client["trips"]), "preferences": client["preferences"]}


def _read(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    return found


def add_trip(client: dict[str, Any], request: TripRequest) -> dict[str, Any]:
    """Return the content of the client's file with the trip added."""
    trips = {**client.get("trips", {}), request.request_id: request.trip.model_dump(mode="json", by_alias=True)}
    latest = sorted(trips.items(), key=lambda item: (item[1]["date"], item[0]))[-LAST_TRIPS:]
    return {
        "userId": request.user_id,
        "email": request.client_email,
        "preferences": _preferences([trip for _, trip in latest]),
        "trips": dict(latest),
    }


def _preferences(trips: list[dict[str, Any]]) -> dict[str, Any]:
    homes, wishes = (Counter(trip[name] for trip in trips) for name in ("departure", "wish"))
    return {"home": homes.most_common(1)[0][0], "wish": wishes.most_common(1)[0][0]}
