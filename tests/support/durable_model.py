"""A small pure model of durable jobs: what their programs ask for, and what must come of it (rules 13 and 14)."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

HOUR_MS = 3_600_000


@dataclass(frozen=True)
class Step:
    """A step. With `once` it may raise, which is its outcome then."""

    name: str
    once: bool = False
    raises: bool = False


@dataclass(frozen=True)
class Wait:
    """A wait for a signal, which ends by itself after an hour if it `ends`."""

    name: str
    ends: bool


@dataclass(frozen=True)
class Sleep:
    """A sleep of an hour."""


@dataclass(frozen=True)
class First:
    """A race between a signal and a sleep of an hour."""

    name: str


@dataclass(frozen=True)
class Gather:
    """Children with these programs. With `collect` their failures are results."""

    programs: "tuple[Program, ...]"
    collect: bool


Call = Step | Wait | Sleep | First | Gather
Program = tuple[Call, ...]

_NAMES = st.sampled_from(("a", "b"))
_SIMPLE = st.one_of(
    st.builds(Step, _NAMES),
    st.builds(Step, _NAMES, st.just(True), st.booleans()),
    st.builds(Wait, _NAMES, st.booleans()),
    st.builds(Sleep),
    st.builds(First, _NAMES),
)
_CHILDREN = st.lists(st.lists(_SIMPLE, max_size=2).map(tuple), min_size=1, max_size=3).map(tuple)
PROGRAMS: st.SearchStrategy[Program] = st.lists(
    st.one_of(_SIMPLE, _SIMPLE, st.builds(Gather, _CHILDREN, st.booleans())), min_size=1, max_size=5
).map(tuple)


@dataclass(frozen=True)
class Place:
    """A call of a program with its fields in the journal."""

    call: Call
    field: str
    """Field with the answer; of a race, its choice."""
    waits: Sequence[str] = ()
    """Fields of the waits of a race."""


def places_of(program: Program) -> list[Place]:
    """Return the calls of a program, numbered by kind and name as a worker numbers them."""
    used: Counter[str] = Counter()

    def take(name: str) -> str:
        used[name] += 1
        return f"{name}#{used[name]}"

    found = []
    for position, call in enumerate(program):
        match call:
            case Step(name):
                # A worker refuses other kinds of calls under the name of a step. So names say what the step is.
                kind = f"{name}{'-once' * call.once}{'-raises' * call.raises}"
                found.append(Place(call, take(f"step:{kind}")))
            case Wait(name):
                found.append(Place(call, take(f"wait:{name}")))
            case Sleep():
                found.append(Place(call, take("sleep:")))
            case First(name):
                waits = (take(f"wait:{name}"), take("sleep:"))
                found.append(Place(call, take("first:"), waits))
            case Gather():
                found.append(Place(call, take(f"children:{position}")))
    return found


@dataclass
class Sent:
    """A signal."""

    number: int
    hour: int
    """When it was sent."""


@dataclass
class JobModel:
    """What is known of a job."""

    id: str
    queue: str
    program: Program
    parent: str | None = None
    parent_queue: str | None = None
    seen: dict[str, Any] = field(default_factory=dict)
    """Answers that a run has got, by field. Every later run gets the same."""
    recorded: dict[str, Any] = field(default_factory=dict)
    """Outcomes of steps that Redis has accepted, whether or not a worker has got the reply."""
    entered: Counter[str] = field(default_factory=Counter)
    """How often each step's function was called."""
    allowed: Counter[str] = field(default_factory=Counter)
    """How often a person said that a step runs again."""
    begun: dict[str, int] = field(default_factory=dict)
    """Hour in which each wait began."""
    sent: dict[str, list[Sent]] = field(default_factory=dict)
    taken: Counter[str] = field(default_factory=Counter)
    """Number of signals of each name that waits have taken."""
    unknown: str | None = None
    """Step for which the job is a dead letter, since its outcome is not known."""
    places: list[Place] = field(init=False)

    def __post_init__(self) -> None:
        self.places = places_of(self.program)

    # --- rule 13

    def enter(self, place: Place) -> None:
        """Note that a step's function is called, which must not have come to an end before."""
        assert isinstance(place.call, Step)
        name = place.field
        assert name not in self.recorded, f"{name} of {self.id} runs again after it was recorded"
        assert name not in self.seen, f"{name} of {self.id} runs again after a run has got its value"
        self.entered[name] += 1
        if place.call.once:
            assert self.entered[name] <= 1 + self.allowed[name], f"{name} of {self.id} is entered twice"

    def see(self, name: str, value: Any) -> None:
        """Note an answer, which must be the one that earlier runs have got."""
        assert self.seen.setdefault(name, value) == value, f"{name} of {self.id} has changed"
        if name in self.recorded:
            assert self.recorded[name] == value, f"{name} of {self.id} is not what was recorded"

    # --- rule 14

    def expect_wait(self, name: str, *, ends: bool, begun: int, hour: int) -> "tuple[str, Any] | None":
        """Return what a wait must get now: `signal` with its number, or `late`. None if it goes on."""
        queue = self.sent.get(name, [])
        first = queue[self.taken[name]] if self.taken[name] < len(queue) else None
        if first is not None and not (ends and first.hour > begun):
            return "signal", first.number
        return ("late", None) if ends and hour > begun else None

    def send(self, name: str, number: int, hour: int) -> None:
        """Note a signal that was accepted."""
        self.sent.setdefault(name, []).append(Sent(number, hour))

    # --- what people may do

    def forget_from(self, position: int) -> None:
        """Forget the answers from a place of the program on: the job was replayed from there."""
        for place in self.places[position:]:
            for name in (place.field, *place.waits):
                answer = self.seen.pop(name, None)
                self.recorded.pop(name, None)
                self.begun.pop(name, None)
                self.allowed[name] = self.entered[name]
                if isinstance(answer, tuple) and answer[0] == "signal":
                    assert isinstance(place.call, Wait | First)
                    self.taken[place.call.name] -= 1
        self.unknown = None

    def start_anew(self) -> None:
        """Forget everything, as the ID is enqueued again, or the job is replayed from its start."""
        self.seen, self.recorded, self.begun, self.sent = {}, {}, {}, {}
        self.taken.clear()
        self.allowed = Counter(self.entered)
        self.unknown = None
