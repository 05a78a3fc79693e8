"""Reads a whole run from its folder, also a killed one: manifest, records, and the client's samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import UsageError
from harness.measure.client import (
    ClientFacts,
    Floor,
    read_client,
    samples_from_notes,
    sessions_from_notes,
    write_client,
)
from harness.measure.journal import Journal, read_journal
from harness.measure.records import Records, read_parquet, write_parquet
from harness.measure.run_folder import Manifest, RunFolder, read_manifest, repeats_in


@dataclass(frozen=True)
class Run:
    """All raw facts of a run."""

    folder: RunFolder
    manifest: Manifest
    records: Records
    facts: ClientFacts


def read_run(folder: RunFolder) -> Run:
    """From records.parquet, or from the journals where it was not written yet. Raises UsageError."""
    manifest = read_manifest(folder)
    if folder.records.exists():
        return Run(folder, manifest, read_parquet(folder.records), read_client(folder) or ClientFacts())
    if folder.figures.exists():
        advice = (
            "`harness compare --baseline NAME NEW` compares with it; `baseline save --records` keeps the records too."
        )
        raise UsageError("is of a baseline, and holds figures without records", where=str(folder.path), advice=advice)
    if manifest.end is not None and not folder.journals():
        found = "holds neither records.parquet nor a journal, though its run came to an end"
        raise UsageError(found, where=str(folder.path))
    journal = read_journal(folder.path)
    return Run(folder, manifest, journal.records, read_client(folder) or _client(journal, folder))


def _client(journal: Journal, folder: RunFolder, floor: Floor | None = None, lost: Sequence[str] = ()) -> ClientFacts:
    """What the load processes noted in their journals."""
    notes, where = journal.notes, folder.path
    return ClientFacts(samples_from_notes(notes, where), tuple(lost), floor, sessions_from_notes(notes, where))


def read_runs(paths: Sequence[Path]) -> list[Run]:
    """Of each path the run, or the repeats that it holds. Raises UsageError."""
    return [read_run(RunFolder.open(each)) for path in paths for each in repeats_in(path)]


def keep_records(folder: RunFolder, floor: Floor | None = None, lost_processes: Sequence[str] = ()) -> Run:
    """At the end of the load: journals -> records.parquet and client.json, then the journals go.

    A crash in between leaves the journals, from which the same can be made again.
    """
    manifest, journal = read_manifest(folder), read_journal(folder.path)
    facts = _client(journal, folder, floor, lost_processes)
    write_client(folder, facts)
    write_parquet(journal.records, folder.records)
    for path in folder.journals():
        path.unlink()
    return Run(folder, manifest, journal.records, facts)
