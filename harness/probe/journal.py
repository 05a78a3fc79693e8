"""Writes each start's outcome to disk at once, so that an interrupted search can be resumed."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from harness.input_files import as_text, as_type, brief, numbers_in, read_bytes
from harness.measure.run_folder import naming
from harness.probe.setting import LoadResult, Outcome, Setting, Shape

NAME = "starts.jsonl"
_MOST = 2**53
_REQUESTS_MOST = 1_000_000  # of one load; what a probe asks is far less


class StartJournal:
    """One line saying what is searched, then one line per finished start."""

    def __init__(self, folder: Path, subject: Mapping[str, Any]) -> None:
        self._path = folder / NAME
        self._subject = dict(subject)

    def read(self) -> list[Outcome]:
        """The finished starts so far, none without a journal. Raises UsageError when it is of another search."""
        if not self._path.is_file():
            return []
        lines = as_text(read_bytes(self._path, most=1 << 30), self._path).splitlines()
        documents = [document for line in lines if (document := _parsed(line)) is not None]
        if not documents:
            return []
        differing = [key for key, value in self._subject.items() if documents[0].get(key) != value]
        if differing:
            raise UsageError(
                f"holds a search with another {', '.join(differing)}",
                where=str(self._path),
                advice="Resume with the same options, or name another --output.",
            )
        try:
            return [outcome_from_json(document, self._path) for document in documents[1:]]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UsageError(
                f"a start is not as expected: {type(error).__name__}: {brief(error)}",
                where=str(self._path),
                advice="Name another --output.",
            ) from error

    def add(self, outcome: Outcome) -> None:
        """On disk when this returns. A line that a crash cut off makes room first."""
        if self._path.is_file():
            whole = self._path.read_bytes().rfind(b"\n") + 1
            os.truncate(self._path, whole)
        with naming(self._path), self._path.open("a", encoding="utf-8") as file:
            if file.tell() == 0:
                file.write(json.dumps(self._subject) + "\n")
            file.write(json.dumps(outcome_to_json(outcome)) + "\n")
            file.flush()
            os.fsync(file.fileno())


def _parsed(line: str) -> dict[str, Any] | None:
    """None for the line that a crash cut off."""
    try:
        document = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def outcome_to_json(outcome: Outcome) -> dict[str, Any]:
    return {
        "setting": _given(outcome.setting),
        "started": dataclasses.asdict(outcome.started) if outcome.started else None,
        "came_up": outcome.came_up,
        "failure": dataclasses.asdict(outcome.failure) if outcome.failure else None,
        "loads": [_result_to_json(result) for result in outcome.loads],
        "seconds": round(outcome.seconds, 3),
    }


def outcome_from_json(document: Mapping[str, Any], where: object = NAME) -> Outcome:
    """The reverse of outcome_to_json. Raises UsageError, KeyError, TypeError, ValueError and AttributeError."""
    loads = [_as_load(each) for each in document["loads"]]
    found = as_type(Outcome, {**document, "loads": loads}, where)
    if not all(_bounded(number) for number in numbers_in(dataclasses.asdict(found))):
        raise ValueError("a number is beyond all bounds")
    return found


def _bounded(number: float) -> bool:
    """No count of tokens, no number of seconds is larger, or below zero."""
    return 0 <= number < _MOST


def _given(setting: Setting) -> dict[str, Any]:
    return {name: value for name, value in dataclasses.asdict(setting).items() if value is not None}


def _result_to_json(result: LoadResult) -> dict[str, Any]:
    facts = {
        each.name: getattr(result, each.name)
        for each in dataclasses.fields(result)
        if each.name not in ("load", "seconds")
    }
    load = result.load
    return {
        "load": {
            **{each.name: getattr(load, each.name) for each in dataclasses.fields(load) if each.name != "waves"},
            "waves": [_run_lengths(wave) for wave in load.waves],
        },
        **facts,
        "seconds": round(result.seconds, 3),
    }


def _as_load(result: Mapping[str, Any]) -> dict[str, Any]:
    """With the requests of each wave written out."""
    load = result["load"]
    if sum(count for wave in load["waves"] for _, _, count in wave) > _REQUESTS_MOST:
        raise ValueError(f"a load of more than {_REQUESTS_MOST} requests")
    waves = [
        [{"input_tokens": read, "max_new_tokens": new} for read, new, count in wave for _ in range(count)]
        for wave in load["waves"]
    ]
    return {**result, "load": {**load, "waves": waves}}


def _run_lengths(wave: Sequence[Shape]) -> list[list[int]]:
    """[prompt tokens, answer tokens, how many in a row]."""
    return [[shape.input_tokens, shape.max_new_tokens, len(list(same))] for shape, same in groupby(wave)]
