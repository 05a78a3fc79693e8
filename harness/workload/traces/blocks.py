"""How many tokens a block hash covers: as the form says, checked against the lengths beside the hashes."""

from __future__ import annotations

from dataclasses import dataclass

from harness.errors import UsageError
from harness.workload.traces.container import Head
from harness.workload.traces.row import Record
from harness.workload.traces.tally import Tally
from harness.workload.traces.values import hashes, tokens

OPTION = "--trace-block-tokens"
_SIZES = tuple(2**power for power in range(15))


@dataclass(frozen=True)
class Blocks:
    """tokens: of one block. source: what says so. column: where the hashes are; None where there are none."""

    column: str | None
    tokens: int
    source: str

    def read(self, record: Record, length: int, tally: Tally) -> tuple[int, ...]:
        """The hashes of a prompt of this length. What goes beyond its end is cut, and counted."""
        found = hashes(record, self.column)
        most = -(-length // self.tokens) if found else 0
        if len(found) > most:
            tally.alter(f"more block hashes than their length holds, at {self.tokens} tokens each; cut")
            return found[:most]
        return found

    def __str__(self) -> str:
        return f"blocks of {self.tokens} tokens ({self.source})"


NO_BLOCKS = Blocks(None, 1, "")


def find_blocks(
    head: Head, column: str | None, length: str | None, *, given: int | None, form: str = "", size: int | None = None
) -> Blocks:
    """The blocks of these columns. given: the user's word; form, size: the publisher's, taken where the lengths agree.

    Raises UsageError where nothing tells the size.
    """
    pairs = _pairs(head, column, length)
    if column is None or not pairs:
        return NO_BLOCKS
    if given is not None:
        return Blocks(column, given, OPTION)
    if size is not None and _fits(pairs, size):
        return Blocks(column, size, f"by the form, {form}")
    fitting = [each for each in _SIZES if _fits(pairs, each)]
    if len(fitting) == 1:
        return Blocks(column, fitting[0], f"by the lengths beside them in the first {len(pairs)} rows")
    inputs, count = next(((inputs, count) for inputs, count in pairs if count), pairs[0])
    known = f"{form} has {size}; " if size else ""
    found = f"{count} block hashes for {inputs} tokens: {known}the lengths leave " + (
        f"blocks of {' or '.join(map(str, fitting[:4]))} tokens" if fitting else "no size that fits all rows"
    )
    raise UsageError(found, where=f"{head.name}: column {column}", advice=f"Give {OPTION}.")


def agree(head: Head, column: str | None, length: str | None, size: int) -> bool | None:
    """Whether the first rows' lengths agree with blocks of this size; None where they say nothing."""
    pairs = [pair for pair in _pairs(head, column, length) if pair[1]]
    return _fits(pairs, size) if pairs else None


def _pairs(head: Head, column: str | None, length: str | None) -> list[tuple[int, int]]:
    """Tokens and number of hashes of the first rows."""
    if column is None or length is None:
        return []
    told = [record for record in head.records if record.fields.get(column) is not None]
    return [(tokens(record, length), len(hashes(record, column))) for record in told]


def _fits(pairs: list[tuple[int, int]], size: int) -> bool:
    """A hash for each block, or, as some publish it, for each full block only."""
    return all(-(-inputs // size) == count for inputs, count in pairs) or all(
        inputs // size == count for inputs, count in pairs
    )
