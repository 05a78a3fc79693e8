"""Each start's outcome on disk as soon as it is known, so that a search goes on where it was cut off."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from harness.engines.base import EngineFacts
from harness.errors import UsageError
from harness.input_files import as_text, brief, read_bytes
from harness.probe.setting import Failure, Load, LoadResult, Outcome, Setting, Shape

NAME = "starts.jsonl"


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
            return [outcome_from_json(document) for document in documents[1:]]
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
        with self._path.open("a", encoding="utf-8") as file:
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


def outcome_from_json(document: Mapping[str, Any]) -> Outcome:
    started, failure = document["started"], document["failure"]
    return Outcome(
        setting=Setting(**document["setting"]),
        started=EngineFacts(**started) if started else None,
        came_up=document["came_up"],
        failure=Failure(**failure) if failure else None,
        loads=tuple(_result_from_json(each) for each in document["loads"]),
        seconds=document["seconds"],
    )


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


def _result_from_json(document: Mapping[str, Any]) -> LoadResult:
    fields = dict(document)
    load = dict(fields.pop("load"))
    load["waves"] = tuple(
        tuple(Shape(read, new) for read, new, count in wave for _ in range(count)) for wave in load["waves"]
    )
    return LoadResult(Load(**load), **fields)


def _run_lengths(wave: Sequence[Shape]) -> list[list[int]]:
    """[prompt tokens, answer tokens, how many in a row]."""
    return [[shape.input_tokens, shape.max_new_tokens, len(list(same))] for shape, same in groupby(wave)]
