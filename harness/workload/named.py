"""Workloads with a name, each a file of locustfiles/: the one place where its lengths stand.

Files of the working directory's locustfiles/ win over those that ship with harness. Answers of the latter stay at or
below 1,024 tokens: beyond, TGI runs a request in pieces and queues it anew between them
(router/src/validation.rs:152-169), which is a workload of its own.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from harness.errors import UsageError
from harness.workload.lengths import parse_lengths
from harness.workload.locustfile import Parameter, UserClass, read_locustfile

FOLDER = "locustfiles"


@dataclass(frozen=True)
class NamedWorkload:
    """input_tokens, output_tokens: distributions as `--input-tokens` takes them. reason: why these. path: its file."""

    name: str
    input_tokens: str
    output_tokens: str
    reason: str
    path: str


def named(name: str) -> NamedWorkload:
    """The workload of this name; a path that ends in .py names its file. Raises UsageError with the nearest names, and
    for a file that bench cannot read.
    """
    return _complete(name, ())


def known() -> list[str]:
    """All names, the working directory's first."""
    return list(dict.fromkeys(path.stem for folder in _folders() for path in sorted(folder.glob("[!_]*.py"))))


def _complete(name: str, asked_by: tuple[str, ...]) -> NamedWorkload:
    """What a file leaves out it takes from the workload that it names."""
    path = _find(name, asked_by)
    user = read_locustfile(path)
    given, base = user.parameters, user.parameters.get("workload")
    sides = ("input_tokens", "output_tokens")
    lengths: dict[str, str] = {side: given[side].text for side in sides if side in given}
    for side in lengths:
        _check(given[side])
    if len(lengths) < 2:
        lengths = _lengths_of(_base(user, base, path, asked_by), (*asked_by, path.stem)) | lengths
    return NamedWorkload(path.stem, **lengths, reason=user.reason, path=str(path))


def _lengths_of(base: str, asked_by: tuple[str, ...]) -> dict[str, str]:
    other = _complete(base, asked_by)
    return {"input_tokens": other.input_tokens, "output_tokens": other.output_tokens}


def _base(user: UserClass, base: Parameter | None, path: Path, asked_by: tuple[str, ...]) -> str:
    if base is None or base.text in (*asked_by, path.stem):
        raise UsageError(
            f"{user.name} gives no input_tokens or no output_tokens",
            where=base.where if base else user.where,
            advice='Give both, or name another workload that has them: workload = "chat".',
        )
    return base.text


def _check(parameter: Parameter) -> None:
    try:
        parse_lengths(parameter.text)
    except UsageError as error:
        raise UsageError(error.found, where=parameter.where, advice=error.advice) from error


def _find(name: str, asked_by: tuple[str, ...]) -> Path:
    if name.endswith(".py"):
        if Path(name).is_file():
            return Path(name)
        raise UsageError("no such file", where=name)
    for folder in _folders():
        if (folder / f"{name}.py").is_file():
            return folder / f"{name}.py"
    near = difflib.get_close_matches(name, known(), n=1)
    where = f"{FOLDER}/{asked_by[-1]}.py" if asked_by else None
    advice = f"Did you mean {near[0]}?" if near else f"Known: {', '.join(known())}; or write {FOLDER}/{name}.py."
    raise UsageError(f"unknown workload {name!r}", where=where, advice=advice)


def _folders() -> list[Path]:
    """Here, in the wheel, and in an editable checkout, which has no copy in the package."""
    packaged = Path(str(files("harness").joinpath(f"data/{FOLDER}")))
    checkout = Path(__file__).resolve().parents[2] / FOLDER
    return [Path(FOLDER), packaged if packaged.is_dir() else checkout]
