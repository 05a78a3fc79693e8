"""A level while it runs, in open and closed loop: it begins, sends until it is over, and waits for the answers."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import gevent
from gevent.event import Event

from harness.load.session import PreparedRequest, Session
from harness.load.starts import Starts
from harness.load.stream_user import StreamUser
from harness.measure.run_folder import Level
from harness.workload.mix import SLOTS
from harness.workload.request import LEVEL_NUMBERS
from harness.workload.seeds import uniform

# Numbers of a level from where on processes that came later have theirs, and how many each has.
_LATE_FROM, _LATE_EACH = LEVEL_NUMBERS // SLOTS // 2, 10_000
_AHEAD_BYTES = 32 << 20  # of prepared requests


@dataclass
class RunningLevel:
    """One level while it is run by one of `processes` load processes.

    users: the classes that ask, each with its place in a mix. share: this process's number; one that came later, when
    the numbers had been shared out, has one that is too high, and asks under numbers of its own. begun: set at the
    first moment, `began_at` (CLOCK_MONOTONIC). over: set when no more may be sent. passed: set when its users go on in
    the next level. ended_by: why. ahead: how many requests are prepared before they are needed, in idle time. playing:
    conversations under way in a closed loop: a number of them that is reached ends the level when the last one has
    ended. moved: of each turn of a trace that had to wait for the answer before, seconds beyond its own moment.
    """

    session: Session
    level: Level
    users: Sequence[type[StreamUser]]
    share: int = 0
    processes: int = 1
    ahead: int = 1
    ended_by: str | None = None
    began_at: float = 0.0
    begun: Event = field(default_factory=Event)
    over: Event = field(default_factory=Event)
    passed: Event = field(default_factory=Event)
    starts: Starts = field(init=False)
    playing: int = 0
    moved: list[float] = field(default_factory=list)
    _begun_by_all: int = 0
    _taken: Counter[int] = field(default_factory=Counter)
    _users: int = 0
    _ready: deque[PreparedRequest] = field(default_factory=deque)
    _ready_bytes: int = 0

    def __post_init__(self) -> None:
        plan = self.session.plan
        self.starts = Starts(self.session, self.level.users or 0, spread=plan.spread, over=self.over)
        if len(self.users) > 1 or self.users[0].scripts:
            self.ahead = 0  # who asks next decides what is asked

    def begin(self, at: float) -> None:
        """Wait for this moment of CLOCK_MONOTONIC, then let users send; a level with a duration ends after it."""
        gevent.sleep(max(0.0, at - time.monotonic()))
        self.began_at = at
        self.session.begin_level(self.level.level)
        self.starts.begin(at)
        self.begun.set()
        if self.level.duration is not None and (self.level.arrival is None or self.converses):
            gevent.spawn_later(self.level.duration, self.end, "duration")

    @property
    def converses(self) -> bool:
        """Whether what is asked goes on with its answers."""
        return self.session.workload.converses

    @property
    def most(self) -> float:
        """How many requests, or conversations, the level begins at most."""
        most = self.level.sessions if self.converses else self.level.requests
        return float("inf") if most is None else most

    def end(self, reason: str) -> None:
        """No more requests from now on; the first reason is kept."""
        if not self.over.is_set():
            self.ended_by = reason
            self.over.set()

    def hand_over(self, reason: str) -> None:
        """The users that are there go on, in the next level."""
        self.ended_by = reason
        self.passed.set()

    def enter(self) -> int:
        """The number of one more user, among those of all processes."""
        self._users += 1
        return self._shared(self._users - 1)

    def fill(self) -> bool:
        """Prepare one request more, if there is need and room; whether another one may follow."""
        if self.over.is_set() or len(self._ready) >= self.ahead or self._ready_bytes > _AHEAD_BYTES:
            return False
        prepared = self._prepare(None)
        if prepared is None:
            return False
        self._ready.append(prepared)
        self._ready_bytes += len(prepared.call)
        return True

    def take(self, user: StreamUser) -> PreparedRequest | None:
        """What this user asks next; None when the level is over, which the last one asked of it makes it."""
        if self.over.is_set():
            return None
        if self._ready:
            prepared = self._ready.popleft()
            self._ready_bytes -= len(prepared.call)
            self.playing += 1
            self.session.transport.wake()  # another may be prepared in its place
            return prepared
        made = self._prepare(user)
        if made is not None:
            self.playing += 1
        elif not self.converses:
            self.end("requests")
        elif not self.playing:
            self.end("sessions")
        return made

    def arrival(self, number: int, environment: Any) -> PreparedRequest:
        """What begins with arrival `number` of all processes; of several classes one by their weights."""
        slot = self._class_of(number)
        user = self.users[slot]
        player = None
        if user.scripts:
            one = user(environment)  # a user who comes, has a conversation, and goes
            one.on_start()
            player = one.script
        return self.session.prepare(self.level.level, self._number(number, slot), player)

    def _class_of(self, number: int) -> int:
        if len(self.users) == 1:
            return 0
        weights = list(accumulate(user.weight for user in self.users))
        drawn = uniform(self.session.plan.seed, "user class", self.level.level, number) * weights[-1]
        return next(slot for slot, weight in enumerate(weights) if drawn <= weight)

    def _prepare(self, user: StreamUser | None) -> PreparedRequest | None:
        if self._shared(self._begun_by_all) >= self.most:
            return None
        slot = self.users.index(type(user)) if user is not None and len(self.users) > 1 else 0
        number = self._shared(self._taken[slot])
        self._begun_by_all += 1
        self._taken[slot] += 1
        player = user.script if user and user.scripts else None
        return self.session.prepare(self.level.level, self._number(number, slot), player)

    def _shared(self, count: int) -> int:
        """The number of this process's `count`th of something, among those of all."""
        if self.share < self.processes:
            return count * self.processes + self.share
        return _LATE_FROM + self.share * _LATE_EACH + count

    def _number(self, number: int, slot: int) -> int:
        return number * SLOTS + slot if len(self.users) > 1 else number
