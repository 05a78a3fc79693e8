"""A whole run from its folder, also of one that was killed: manifest, records, and what the client said of itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.measure.client import ClientFacts, ClientSample, Floor, read_client, samples_from_dicts, write_client
from harness.measure.journal import Journal, read_journal
from harness.measure.records import Records, read_parquet, write_parquet
from harness.measure.run_folder import Manifest, RunFolder, read_manifest


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
    if folder.records.is_file():
        return Run(folder, manifest, read_parquet(folder.records), read_client(folder) or ClientFacts())
    journal = read_journal(folder.path)
    return Run(folder, manifest, journal.records, read_client(folder) or ClientFacts(samples=_samples(journal)))


def keep_records(folder: RunFolder, floor: Floor | None = None, lost_processes: Sequence[str] = ()) -> Run:
    """At the end of the load: journals -> records.parquet and client.json, then the journals go.

    A crash in between leaves the journals, from which the same can be made again.
    """
    manifest, journal = read_manifest(folder), read_journal(folder.path)
    facts = ClientFacts(_samples(journal), tuple(lost_processes), floor)
    write_client(folder, facts)
    write_parquet(journal.records, folder.records)
    for path in folder.journals():
        path.unlink()
    return Run(folder, manifest, journal.records, facts)


def _samples(journal: Journal) -> tuple[ClientSample, ...]:
    notes = [dict(note) for note in journal.notes if note["kind"] == "sample"]
    for note in notes:
        del note["kind"]
    return tuple(sorted(samples_from_dicts(notes), key=lambda sample: (sample.at, sample.process)))
