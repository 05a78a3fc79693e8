"""What a user class of a locustfile asks, as a value: the load process that runs the file tells it to whoever plans."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from harness.errors import UsageError
from harness.workload.chat import Chat
from harness.workload.drawn import DrawnWorkload, drawn
from harness.workload.history import parse_history
from harness.workload.lengths import Lengths, parse_lengths
from harness.workload.mix import Mix
from harness.workload.pauses import Pauses, parse_pauses
from harness.workload.tokens import parse_tokens
from harness.workload.vocabulary import Vocabulary


@dataclass(frozen=True)
class UserSpec:
    """name: of the workload, which is the file's. user: of the class. reason: its docstring. where: file and class.

    input_tokens, output_tokens, turns, think_time, history, system_tokens, shared_prefix: as the class writes them,
    None where it does not; lengths and pauses also as values, in place of those. scripts: its methods that yield, each
    as often as its weight says. tasks: its own methods that do not. weight, fixed_count, waits (whether it has a
    wait_time): Locust's. api, stream: as in StreamUser.
    """

    name: str
    user: str
    where: str
    input_tokens: str | Lengths
    output_tokens: str | Lengths
    reason: str = ""
    turns: str | None = None
    think_time: str | Pauses | None = None
    history: str | None = None
    system_tokens: str | None = None
    shared_prefix: str | None = None
    scripts: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    weight: float = 1.0
    fixed_count: int = 0
    waits: bool = False
    api: str | None = None
    stream: bool = True

    @property
    def converses(self) -> bool:
        """Whether its users go on with the answers that they get."""
        told = (self.turns, self.think_time, self.history, self.system_tokens, self.shared_prefix)
        return bool(self.scripts) or any(each is not None for each in told)

    @property
    def has_system_prompt(self) -> bool:
        return self.system_tokens not in (None, "0")

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> UserSpec:
        return cls(**{**fields, "scripts": tuple(fields["scripts"]), "tasks": tuple(fields["tasks"])})

    def check(self) -> None:
        """Raises UsageError, with the class and the attribute, for what cannot be read."""
        self.workload(seed=1)

    def workload(
        self,
        *,
        seed: int,
        salt: str = "",
        vocabulary: Vocabulary | None = None,
        limits: Mapping[str, int | float] | None = None,
    ) -> DrawnWorkload | Chat:
        """limits: of the service, under TGI's names. Raises UsageError."""
        for side in ("input_tokens", "output_tokens"):
            self._read(side, lambda text, side=side: parse_lengths(text, side))
        base = drawn(self.name, self.input_tokens, self.output_tokens, seed=seed, salt=salt, vocabulary=vocabulary)
        if not self.converses:
            return base
        known, shared = limits or {}, self._read("shared_prefix", _tokens_or_none)
        return Chat(
            base,
            turns=self._read("turns", lambda text: parse_lengths(text or "1")),
            think_time=self._read("think_time", lambda text: parse_pauses(text or "0")),
            system_tokens=self._read("system_tokens", _tokens_or_none) or 0,
            shared_prefix=shared,
            history=self._read("history", lambda text: parse_history(text or "keep_all")),
            script="+".join(dict.fromkeys(self.scripts)) or None,
            prompt_most=_whole(known.get("max_input_tokens")),
            total_most=_whole(known.get("max_total_tokens")),
        )

    def _read(self, name: str, parse: Any) -> Any:
        try:
            return parse(getattr(self, name))
        except UsageError as error:
            raise UsageError(error.found, where=f"{self.where}.{name}", advice=error.advice) from error


def workload_of(
    specs: Sequence[UserSpec],
    seed: int,
    salt: str,
    words: Callable[[bool], Vocabulary],
    limits: Mapping[str, int | float],
) -> DrawnWorkload | Chat | Mix:
    """What these users ask, each with a seed of its own. words: of prompts with a system message, or without. limits:
    of the service, under TGI's names. Raises UsageError.
    """
    parts = tuple(
        spec.workload(
            seed=seed + slot,
            salt=f"{salt}-{slot}" if slot else salt,
            vocabulary=words(spec.has_system_prompt),
            limits=limits,
        )
        for slot, spec in enumerate(specs)
    )
    return parts[0] if len(parts) == 1 else Mix(parts, tuple(spec.weight for spec in specs))


def _tokens_or_none(text: str | None) -> int | None:
    if text is None or text == "0":
        return None if text is None else 0
    try:
        return parse_tokens(text)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _whole(limit: int | float | None) -> int | None:
    return None if limit is None else int(limit)
