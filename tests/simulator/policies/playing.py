"""Runs of a law over made-up requests: everything that came out, and checks that hold after every call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from hypothesis import strategies as st

from harness.simulator.policies import PoolRequest, PoolScheduler


@dataclass
class Ask:
    """Arrival (counted in calls), prompt, bound of the answer, true length, and the call at which the client goes."""

    at: int
    prompt: list[int]
    new: int
    stops: int
    leaves: int | None = None
    whole: bool = False


@dataclass
class Played:
    """Everything that came out of one run."""

    requests: list[PoolRequest]
    tokens: dict[int | str, int] = field(default_factory=dict)
    finished: dict[int | str, str] = field(default_factory=dict)
    failed: dict[int | str, str] = field(default_factory=dict)
    dropped: set[int | str] = field(default_factory=set)
    put_back: int = 0
    calls: int = 0


def asks(longest_prompt: int = 40, longest_answer: int = 30, *, leaving: bool = True) -> st.SearchStrategy[list[Ask]]:
    return st.lists(
        st.builds(
            Ask,
            at=st.integers(0, 20),
            prompt=st.lists(st.integers(1, 3), min_size=1, max_size=longest_prompt),
            new=st.integers(1, longest_answer),
            stops=st.integers(1, 2 * longest_answer),
            leaves=st.none() | st.integers(0, 60) if leaving else st.none(),
            whole=st.booleans(),
        ),
        min_size=1,
        max_size=14,
    )


def play(
    scheduler: PoolScheduler,
    wanted: list[Ask],
    check: Callable[[PoolScheduler], None] = lambda scheduler: None,
    most: int = 20_000,
) -> Played:
    """Run until all is done. Raises AssertionError where that never happens."""
    requests = [
        PoolRequest(number, ask.prompt, ask.new, answer_tokens=ask.stops, whole=ask.whole)
        for number, ask in enumerate(wanted)
    ]
    played = Played(requests)
    waiting = sorted(range(len(wanted)), key=lambda number: wanted[number].at)

    def ended(request: object) -> str | None:
        assert isinstance(request, PoolRequest)
        assert request.answer_tokens is not None
        return "stop" if not request.whole and request.generated >= request.answer_tokens else None

    for step in range(most):
        while waiting and wanted[waiting[0]].at <= step:
            scheduler.enqueue(requests[waiting.pop(0)], float(step))
        for request, ask in zip(requests, wanted, strict=True):
            if ask.leaves == step and request.id not in played.finished and request.id not in played.failed:
                scheduler.leave(request)
        call = scheduler.next_call(float(step))
        played.failed |= {failed.request.id: failed.text for failed in scheduler.take_failed()}
        played.dropped |= {request.id for request in scheduler.take_dropped()}
        check(scheduler)
        if call is None:
            if scheduler.idle and not waiting:
                break
            assert waiting, "nothing runs, and what waits can never run"
            continue
        played.calls += 1
        for request, tokens, finished in scheduler.complete(call, float(step), ended):
            played.tokens[request.id] = played.tokens.get(request.id, 0) + tokens
            if finished is not None:
                played.finished[request.id] = finished
        check(scheduler)
    else:
        raise AssertionError("it never ends")
    played.put_back = scheduler.put_back
    return played


def all_answered(played: Played, wanted: list[Ask]) -> None:
    """Everybody who stayed got the answer that was due, token by token."""
    for request, ask in zip(played.requests, wanted, strict=True):
        if request.gone or request.id in played.failed:
            continue
        due = ask.new if ask.whole else min(ask.new, ask.stops)
        assert played.tokens[request.id] == request.generated == due
        by_itself = not ask.whole and ask.stops <= ask.new
        assert played.finished[request.id] == ("stop" if by_itself else "length")
