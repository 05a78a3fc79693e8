"""capacity.json: what a search has measured so far, rewritten when a level ends, and read again by --resume."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from harness.drive.capacity_plan import CapacityOptions, CapacityPlan
from harness.errors import UsageError
from harness.input_files import read_json_object
from harness.measure.records import read_parquet
from harness.measure.run_folder import RunFolder, run_name, write_atomically
from harness.serve.target import Say
from harness.stats.binding import scaled_by_history
from harness.stats.capacity_file import require_sound
from harness.stats.capacity_report import CapacityReport, HistoryCapacity
from harness.stats.capacity_search import CapacitySearch
from harness.stats.outcome import Outcome, unanswered_from
from harness.stats.people import Flow
from harness.stats.surface import Figures
from harness.workload.habits import converses, habits_told

FILE = "capacity.json"
SCHEMA = 2


class CapacityBook:
    """capacity.json as the search goes on; every level that ended is on disk at once."""

    def __init__(self, plan: CapacityPlan, folder: Path) -> None:
        self.plan, self.folder = plan, folder
        self.searches = [CapacitySearch(plan.goal) for _ in plan.histories]
        self.flows: list[list[Flow]] = [[] for _ in plan.histories]
        self.figures: list[list[Figures]] = [[] for _ in plan.histories]
        self.habits = plan.habits
        self.unit: str = plan.unit
        self._run: tuple[int, int, RunFolder] | None = None  # history, levels told before it, and where it lies

    @classmethod
    def open(cls, plan: CapacityPlan, options: CapacityOptions, progress: Say) -> CapacityBook:
        """A new folder, or with --resume the book that is in it. Raises UsageError."""
        if not options.resume:
            stamp = run_name(datetime.now(timezone.utc), plan.model, None, "capacity")
            folder = RunFolder.create(options.asked.output or Path("reports") / stamp).path
            book = cls(plan, folder)
            book.write()
            return book
        if options.asked.output is None:
            raise UsageError("--resume goes on in the folder of a search", advice="Name it with --output.")
        book = cls(plan, options.asked.output)
        book._read()
        done = sum(len(each.told) for each in book.searches)
        progress(f"going on in {book.folder}: {done} levels are there already")
        return book

    def next_run(self, place: int) -> Path:
        """A folder for the run that comes: each start of the command has its own."""
        name = f"history-{self.plan.histories[place]}" if self.plan.histories[place] is not None else "levels"
        path = next(path for number in range(1000) if not (path := self.folder / f"{name}-{number:02d}").exists())
        self._run = (place, len(self.searches[place].told), RunFolder(path))
        return path

    def begin_at_what_is_known(self, place: int) -> None:
        """A further history begins where the limit of the one before it puts its own, by what binds there."""
        if place == 0 or self.searches[place].told:
            return
        goal, before = self.plan.goal, self.report().histories[place - 1]
        history, best = self.plan.histories[place], before.answer.best
        if best is None or not before.history or not history:
            return
        beside = before.beside_the_limit
        scale = scaled_by_history(beside[0][1].binds.resource if beside else None, before.history, history)
        start = min(best * scale, goal.most)
        start = max(1.0, float(round(start))) if goal.whole else start
        self.searches[place] = CapacitySearch(replace(goal, start=start, guessed=True))

    def learn_habits(self, workload: Mapping[str, Any]) -> None:
        """Turns and think time from what the manifest says of the workload, where no option did; and whether a rate is
        one of conversations.
        """
        if self.plan.unit == "rate" and converses(workload):
            self.unit = "conversations"
        told = habits_told(workload)
        if not self.plan.turns_told and told.turns is not None:
            self.habits = replace(self.habits, turns=told.turns)
        if not self.plan.think_told and told.think is not None:
            self.habits = replace(self.habits, think=told.think)

    def keep(self, place: int, flow: Flow, figures: Figures) -> None:
        """A level that was told to the search of this place."""
        self.flows[place].append(flow)
        self.figures[place].append(figures)
        self.write()

    def discard_if_empty(self) -> None:
        """Leave no folder in the way of the next try where the service was not even found."""
        if any(each.told for each in self.searches) or any(any(run.iterdir()) for run in self.folder.glob("*/")):
            return
        (self.folder / FILE).unlink(missing_ok=True)
        for run in self.folder.glob("*/"):
            run.rmdir()

    def leave_out_outage(self) -> None:
        """Take out the levels of the last run that ended while the service was away already: it takes seconds to be
        sure of that, and what was refused meanwhile is no sign of the load.
        """
        if self._run is None or not self._run[2].records.exists():
            return
        place, before, folder = self._run
        away = unanswered_from(read_parquet(folder.records))
        if away is None:
            return
        search, kept = self.searches[place], before + away
        self.searches[place] = CapacitySearch(search.goal, search.told[:kept])
        del self.flows[place][kept:], self.figures[place][kept:]
        self.write()

    def report(self) -> CapacityReport:
        plan = self.plan
        parts = zip(plan.histories, self.searches, self.flows, self.figures, strict=True)
        histories = tuple(
            HistoryCapacity(history, search, tuple(flows), tuple(figures)) for history, search, flows, figures in parts
        )
        answer = (plan.model, self.unit, plan.slo, self.habits)
        return CapacityReport(*answer, plan.price, histories, plan.gpus, plan.money)

    def write(self) -> None:
        habits = {"turns": self.habits.turns, "think": self.habits.think}
        told = self.report().as_dict()
        document = {"schema": SCHEMA, "question": dict(self.plan.question), "habits": habits, **told}
        write_atomically(self.folder / FILE, (json.dumps(document, indent=2) + "\n").encode())

    def _read_habits(self, told: Mapping[str, Any]) -> None:
        """Those that the workload said; what options say now goes before."""
        turns = self.habits.turns
        if not self.plan.turns_told and told["turns"] is not None:
            turns = float(told["turns"])
        think = self.habits.think if self.plan.think_told else float(told["think"])
        self.habits = replace(self.habits, turns=turns, think=think)

    def _read(self) -> None:
        path = self.folder / FILE
        if not path.exists():
            raise UsageError("not found", where=str(path), advice="Name the folder of a search.")
        document = read_json_object(path)
        require_sound(document, path)
        try:
            if document["schema"] != SCHEMA:
                raise ValueError(f"schema {document['schema']!r}, this version reads {SCHEMA}")
            question, surface = document["question"], document["surface"]
            if question == json.loads(json.dumps(self.plan.question)):
                for place, cell in enumerate(surface):
                    for entry in cell["levels"]:
                        self.searches[place].tell(Outcome.from_dict(entry))
                        self.flows[place].append(Flow.from_dict(entry["flow"]))
                        self.figures[place].append(Figures.from_dict(entry["figures"]))
                self._read_habits(document["habits"])
                self.unit = str(document["unit"])
                return
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise UsageError(f"cannot be read: {error}", where=str(path)) from error
        now = json.loads(json.dumps(self.plan.question))
        other = [name for name in now if question.get(name) != now[name]]
        raise UsageError(f"that search asked something else: {', '.join(other)}", where=str(path))
