"""How near the search comes to the truth, over a wide family of engines in values:

    python -m tests.probe.cells [--each N] [--seed S] [WORD...]

One line for each kind of engine and goal (of those whose name has the words): starts, history and budget against the
truth, and whether the recommendation survives whatever it admits. The truth is worked out from the engine's law.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from harness.probe.ask import Search
from harness.probe.setting import Goal, Prior, ProbeGoal, Setting, effective_prefill
from tests.probe.model_engine import ModelEngine, run

CONTEXTS = (2048, 4096, 8192, 16_384, 32_768, 131_072)
SMALL, LARGE = 4_000, 500_000  # tokens of memory
GOALS: tuple[Goal, ...] = ("balanced", "history")

Make = Callable[[random.Random, int, int], ModelEngine]  # of memory and context


def _padded(**more: object) -> Make:
    def make(chance: random.Random, memory: int, context: int) -> ModelEngine:
        given = {name: value(chance) if callable(value) else value for name, value in more.items()}
        given.setdefault("activation", _linear(chance.uniform(0.05, 0.6)))
        return ModelEngine(memory, "padded", context=context, **given)  # type: ignore[arg-type]

    return make


def _flash(**more: object) -> Make:
    def make(chance: random.Random, memory: int, context: int) -> ModelEngine:
        given = {name: value(chance) if callable(value) else value for name, value in more.items()}
        given.setdefault("activation", _linear(chance.uniform(0.05, 0.6)))
        engine = ModelEngine(memory, "flash", context=context, **given)  # type: ignore[arg-type]
        if engine.load_dies is not None:
            engine.load_dies = int(chance.uniform(0.35, 0.97) * memory)
        return engine

    return make


def _linear(share: float) -> Callable[[int, int], float]:
    return lambda rows, longest: share * rows * longest


def _quadratic(chance: random.Random) -> Callable[[int, int], float]:
    linear, square = chance.uniform(0.02, 0.3), 10 ** chance.uniform(-5, -3.2)
    return lambda rows, longest: linear * rows * longest + square * rows * longest**2


def _bump(chance: random.Random) -> Callable[[int, int], float]:
    low, high = sorted((chance.uniform(500, 3000), chance.uniform(500, 3000)))
    share, more = chance.uniform(0.1, 0.3), chance.uniform(1.2, 2.0)
    return lambda rows, longest: share * rows * longest * (more if low < longest < high else 1.0)


def _flat(chance: random.Random) -> Callable[[int, int], float]:
    share = chance.uniform(0.002, 0.03)
    return lambda rows, longest: share * rows * longest


CELLS: dict[str, Make] = {
    "padded plain": _padded(),
    "padded admission": _padded(at_admission=True),
    "padded quadratic": _padded(activation=lambda chance: _quadratic(chance)),
    "padded flat": _padded(activation=lambda chance: _flat(chance)),
    "padded bump": _padded(activation=lambda chance: _bump(chance)),
    "padded row cost": _padded(row_cost=lambda chance: 10 ** chance.uniform(0.7, 2.3)),
    "padded row cost admission": _padded(row_cost=lambda chance: 10 ** chance.uniform(0.7, 2.3), at_admission=True),
    "padded row cost quadratic": _padded(
        row_cost=lambda chance: 10 ** chance.uniform(0.7, 2.3), activation=lambda chance: _quadratic(chance)
    ),
    "padded rows die": _padded(rows_die=lambda chance: int(10 ** chance.uniform(0.8, 2.2))),
    "padded chunks": _padded(granule=lambda chance: chance.choice((8, 16, 32))),
    "padded neighbour": _padded(states=lambda chance: (1.0, chance.uniform(0.7, 0.97))),
    "padded jitter": _padded(states=lambda chance: tuple(1 - chance.uniform(0, 0.004) for _ in range(8))),
    "padded longest": _padded(padded_rows=True),
    "padded longest late": _padded(padded_rows=True, padded_late=True),
    "padded longest late quadratic": _padded(
        padded_rows=True, padded_late=True, activation=lambda chance: _quadratic(chance)
    ),
    "padded longest admission": _padded(padded_rows=True, at_admission=True),
    "padded longest counted": _padded(padded_rows=True, counts_padding=True),
    "padded longest ignores batch": _padded(padded_rows=True, heeds_batch_size=False),
    "padded longest row cost": _padded(padded_rows=True, row_cost=lambda chance: 10 ** chance.uniform(0.7, 2.3)),
    "flash plain": _flash(),
    "flash blocks": _flash(block_size=lambda chance: chance.choice((16, 256))),
    "flash unchunked": _flash(chunking=False),
    "flash unchunked quadratic": _flash(chunking=False, activation=lambda chance: _quadratic(chance)),
    "flash load dies": _flash(load_dies=1),
    "flash load dies at admission": _flash(load_dies=1, at_admission=True),
    "flash unchunked load dies": _flash(chunking=False, load_dies=1),
    "flash rows die": _flash(rows_die=lambda chance: int(10 ** chance.uniform(0.8, 2.2))),
    "flash full dies": _flash(full_dies=lambda chance: chance.uniform(0.9, 0.995)),
    "flash neighbour": _flash(states=lambda chance: (1.0, chance.uniform(0.7, 0.97))),
}


# the truth


def budget(engine: ModelEngine, longest: int, chats: int) -> float:
    """The largest token budget that survives whatever it admits with prompts up to this length, one such prefill, and
    so many chats; tokens as the flag counts them.
    """
    return engine.law.budget(longest) - (engine.granule - 1 + engine.row_cost) * chats


def shared_budget(engine: ModelEngine, longest: int, answer: int) -> float:
    """The same with as many chats as it lets in, each with a short prompt and its answer."""
    left, each = budget(engine, longest, 0), answer + 24
    cost = engine.row_cost + engine.granule - 1
    return max(left / (1 + cost / each), left - 1024 * cost)


def best_history(engine: ModelEngine, goal: Goal, answer: int, own: int = 4096, share: float = 0.1) -> int:
    """The longest prompt that the goal allows."""
    most = engine.context - answer if engine.context > answer else engine.context // 2
    own = min(own, engine.context, most)
    floor = (1 - share) * _at(engine, own, goal, answer) if goal == "balanced" else 0.0
    budgets = [(each, _at(engine, each, goal, answer)) for each in _grid(most)]
    floor = min(floor, max(left for _, left in budgets))
    return max((each for each, left in budgets if each + answer <= left and left >= floor), default=0)


def _at(engine: ModelEngine, length: int, goal: Goal, answer: int) -> float:
    if engine.kind == "flash":
        usable = (engine.budget(length) // engine.block_size - 1) * engine.block_size
        return float(usable if engine.load_dies is None else min(usable, engine.load_dies - 1))
    if engine.padded_rows:
        return engine.memory * engine.state - engine.activation(1, length) - engine.row_cost
    return budget(engine, length, 1) if goal == "history" else shared_budget(engine, length, answer)


def _grid(most: int) -> Iterator[int]:
    """Lengths, each 0.2 % above the one before."""
    length = 16.0
    while length < most:
        yield int(length)
        length = max(length + 1, length * 1.002)
    yield most


def most_rows(engine: ModelEngine, total: int, prompt: int) -> int:
    """Chats of full length that survive where each row is as long as the longest."""
    room = engine.memory * engine.state
    rows = 0
    while True:
        each = (rows + 1) * (total + engine.row_cost)
        reading = rows * (total + engine.row_cost) + prompt + engine.row_cost + engine.activation(1, prompt)
        if engine.at_admission or rows == 0:
            reading = max(reading, each + engine.activation(1, prompt)) if engine.at_admission else reading
        longest = total - 1 if rows else prompt  # a chat by itself has written nothing when it is read
        at_read = (rows + 1) * (longest + engine.row_cost) + engine.activation(1, prompt)
        if max(each, reading, at_read) > room:
            return rows
        rows += 1


# one run


@dataclass
class Run:
    """starts; proved; shares by which history and budget are off (negative: below the truth); dies: why the
    recommendation would die, None where it survives.
    """

    starts: int
    proved: bool
    history: float | None = None
    budget: float | None = None
    dies: str | None = None
    what: str = ""


def judged(engine: ModelEngine, search: Search, goal: Goal, answer: int, what: str) -> Run:
    proved = search.proved
    if proved is None:
        failed = search.evidence.last.failure if search.evidence.last else None
        return Run(engine.starts, False, what=f"{what}; {search.fatal or failed}")
    setting = proved.setting
    starts = engine.starts
    engine.starts = max(starts, len(engine.states))  # the last state
    found, chats = setting.max_input_tokens or 0, setting.max_concurrent_requests or 1
    if engine.kind == "flash":
        of_history, of_budget, dies = _flash_off(engine, setting, goal, answer)
    else:
        first = next(each for each in search.evidence.outcomes if each.came_up)
        best = best_history(engine, goal, answer, effective_prefill(first) or 4096)
        of_history = found / best - 1 if best else None
        of_budget, dies = _padded_off(engine, setting, found, chats)
    engine.starts = starts
    given = f"{setting}"
    return Run(starts, True, of_history, of_budget, dies, f"{what}; {given}")


def _padded_off(engine: ModelEngine, setting: Setting, found: int, chats: int) -> tuple[float | None, str | None]:
    prefill, given = setting.max_batch_prefill_tokens or found, setting.max_batch_total_tokens or 0
    if prefill > found:
        return None, f"prefill {prefill}"
    if engine.rows_die is not None and setting.most_at_once >= engine.rows_die:
        return None, f"{setting.most_at_once} chats, {engine.rows_die} die"
    if engine.padded_rows:
        rows = most_rows(engine, setting.max_total_tokens or 2, found)
        if setting.most_at_once > rows:
            return None, f"{setting.most_at_once} rows of {rows}"
        return setting.most_at_once / rows - 1 if rows > 20 else (setting.most_at_once - rows) / 1000, None
    true, most = budget(engine, found, chats), chats * (setting.max_total_tokens or 2)
    if engine.rows_die is not None and most < true:
        return 0.0, None  # so few chats cannot fill it
    # Each chat that runs has at least one token still to write.
    return given / true - 1, f"budget {given} of {true:.0f}" if given > true + chats else None


def _flash_off(
    engine: ModelEngine, setting: Setting, goal: Goal, answer: int
) -> tuple[float | None, float | None, str | None]:
    total, prefill = setting.max_total_tokens or 0, setting.max_batch_prefill_tokens or 0
    usable = engine.budget(prefill, setting.cuda_memory_fraction) // engine.block_size * engine.block_size
    usable -= engine.block_size
    permits = setting.max_concurrent_requests or 1
    in_flight = min(usable, permits * total)
    dies = None
    most = engine.load_dies
    if engine.full_dies is not None:
        most = math.ceil(engine.full_dies * usable)
    if most is not None and in_flight >= most:
        dies = f"{in_flight} in flight, {most} kill"
    if engine.rows_die is not None and permits >= engine.rows_die:
        dies = f"{permits} chats, {engine.rows_die} kill"
    if total > usable + 1:
        dies = f"a chat of {total} waits for ever, {usable} usable"
    top = usable if most is None else min(most - 1, usable if engine.full_dies is not None else most)
    if engine.full_dies is None and most is not None:
        top = min(most - 1, engine.budget(prefill) - engine.block_size)
    alone = min(top + 1, engine.context) - answer
    best = alone if engine.chunking else best_history(engine, goal, answer)
    top = in_reach(engine, top, best + answer)
    return (setting.max_input_tokens or 0) / max(1, best) - 1, in_flight / top - 1 if top else None, dies


def in_reach(engine: ModelEngine, most: int, longest: int) -> int:
    """The most tokens, of so many that survive, that a flash engine's flags can let in flight with the longest chats
    that survive, or such as are shorter by a hundredth. Where it dies of a share of its cache, nothing but the number
    of chats keeps that free, and they are whole ones.
    """
    if engine.rows_die is not None:
        most = min(most, (engine.rows_die - 1) * longest)
    if engine.full_dies is None:
        return most
    counts = range(max(1, most // longest), max(1, int(most / (0.99 * longest))) + 1)
    return max(count * min(longest, most // count) for count in counts)


@dataclass
class Cell:
    name: str
    goal: Goal
    runs: list[Run] = field(default_factory=list)
    seconds: float = 0.0

    def line(self) -> str:
        proved = [each for each in self.runs if each.proved]
        starts = [each.starts for each in self.runs]
        histories = sorted(each.history for each in proved if each.history is not None)
        budgets = sorted(each.budget for each in proved if each.budget is not None)
        dies = sum(each.dies is not None for each in proved)

        def span(values: list[float]) -> str:
            if not values:
                return " " * 22
            near = sum(-0.01 <= each <= 0.01 for each in values) / len(values)
            return f"{values[0]:+7.1%} {values[-1]:+6.1%} {near:4.0%} in"

        return (
            f"{self.name:32} {self.goal:8} {statistics.median(starts):4.1f} {max(starts):2d}  {span(histories)} "
            f" {span(budgets)}  dies {dies:2d}  unproved {len(self.runs) - len(proved):2d}"
            f"  {self.seconds / len(self.runs):5.1f} s"
        )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("words", nargs="*")
    parser.add_argument("--each", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--show", action="store_true", help="each run")
    parser.add_argument("--goal", choices=GOALS)
    asked = parser.parse_args()
    print(f"{'engine':32} {'goal':8} starts    history: least, most     budget: least, most")
    for name, make in CELLS.items():
        if not all(word in name.split() for word in asked.words):
            continue
        for goal in GOALS if asked.goal is None else (asked.goal,):
            cell = Cell(name, goal)
            for number in range(asked.each):
                chance = random.Random(f"{name} {asked.seed} {number}")
                memory = int(math.exp(chance.uniform(math.log(SMALL), math.log(LARGE))))
                context, answer = chance.choice(CONTEXTS), chance.choice((128, 128, 512))
                engine = make(chance, memory, context)
                prior = Prior(context=context)
                began = time.monotonic()
                search = run(Search(ProbeGoal(goal=goal, answer_tokens=answer), prior), engine)
                cell.seconds += time.monotonic() - began
                what = f"memory {memory} context {context} answer {answer}"
                what += f" cost {engine.row_cost:.0f} act(4096) {engine.activation(1, 4096):.0f}"
                cell.runs.append(judged(engine, search, goal, answer, what))
                if asked.show:
                    each = cell.runs[-1]
                    h, b = (f"{v:+.1%}" if v is not None else "-" for v in (each.history, each.budget))
                    print(f"   #{number} {each.starts} history {h} budget {b} {each.dies or ''} | {each.what}")
            print(cell.line(), flush=True)


if __name__ == "__main__":
    main()
