"""Rows of a Parquet file as records."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from harness.errors import UsageError
from harness.workload.traces.row import Record

_BATCH = 64
# Lists with an entry for each token of an answer: nothing asks for them, and they are nearly all of a file's bytes.
_NOT_READ = ("token_at", "token_count")


def parquet_records(path: Path, name: str) -> Iterator[Record]:
    """Raises UsageError where the file is damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            columns = [each for each in file.schema_arrow.names if each not in _NOT_READ]
            for batch in file.iter_batches(_BATCH, columns=columns):
                for fields in batch.to_pylist():
                    number += 1
                    yield Record(fields, number, name)
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        reason = str(error).partition("\n")[0][:200]
        advice = "Fetch the file again."
        raise UsageError(f"no Parquet that can be read: {reason}", where=name, advice=advice) from error
