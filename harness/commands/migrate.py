"""`harness migrate`: translates an entry for another engine, setting by setting."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from harness import terminal
from harness.catalog.edit import entry_lines
from harness.catalog.models import Model, add_entry, catalogue_path, parse_catalogue
from harness.engines import ENGINES, accepted, engine_named, engine_of, load_catalogue
from harness.engines.base import Engine, Place
from harness.engines.migration import Counterpart, Guide
from harness.errors import UsageError

# Keys of an entry that say the same to every engine.
_PLAIN_KEYS = (
    "repo",
    "file",
    "revision",
    "gpu",
    "gpus",
    "dtype",
    "quantize",
    "kv_cache_dtype",
    "price_per_gpu_hour",
    "price_source",
    "context_length",
    "answer_tokens",
    "replicas",
    "port",
    "listen",
    "trust_remote_code",
    "weight_bytes",
)


@dataclass(frozen=True)
class SettingRow:
    """One setting: its value, what it becomes (empty where nothing), and what to know or to do instead."""

    setting: str
    value: str
    becomes: str
    note: str


@dataclass(frozen=True)
class Migration:
    """An entry in another engine's terms. entry: keys of the new entry. refused: why the new engine does not take it
    yet, None where it does. written: the catalogue that has it now.
    """

    model: str
    source: str
    target: str
    name: str
    rows: tuple[SettingRow, ...]
    entry: Mapping[str, Any]
    habits: tuple[str, ...]
    routes: tuple[str, ...]
    refused: str | None = None
    written: str | None = None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def as_text(self) -> str:
        lines = [f"{self.model}: from {self.source} to {self.target}", ""]
        header = ["setting", "is", "becomes", "mind"]
        lines += terminal.table(
            [[row.setting, row.value, row.becomes or "nothing", row.note] for row in self.rows], header
        ).splitlines()
        lines += ["", f"What {self.target} does by default that {self.source} does not:"]
        lines += [f"- {habit}" for habit in self.habits]
        lines += ["", "What clients have to change:", *(f"- {route}" for route in self.routes)]
        lines += ["", "As an entry:", *entry_lines(self.name, self.entry)]
        if self.refused is not None:
            lines += ["", f"It cannot be served yet: {self.refused}"]
        elif self.written is not None:
            lines += ["", f"{self.written}: added {self.name}. Next: harness up {self.name}"]
        else:
            lines += ["", f"--write NAME adds it to the catalogue, to be measured beside {self.model}."]
        return "\n".join(lines)


def migrate(
    name: str,
    to: str,
    *,
    write: str | None = None,
    repo: str | None = None,
    file: str | None = None,
    catalogue: str | Path | None = None,
) -> Migration:
    """An entry translated. write: the name under which it is added to the catalogue. repo, file: other weights for it.

    Raises UsageError: unknown entry or engine, the same engine, no guide between the two; and, where it is to be
    written, what the new engine refuses in it.
    """
    model = load_catalogue(catalogue).find(name)
    source, target = engine_of(model), engine_named(to)
    guide = _guide(source, target)
    if write is not None:
        catalogue_path(catalogue)
    rows, entry = _translated(model, source, target, guide)
    entry |= {key: value for key, value in (("repo", repo), ("file", file)) if value is not None}
    new_name = write or f"{model.name}-{target.name}"
    refused = _refusal(new_name, entry, target)
    result = Migration(
        model.name, source.title, target.title, new_name, rows, entry, guide.habits, guide.routes, refused
    )
    if write is None:
        return result
    if refused is not None:
        raise UsageError(f"is not written: {refused}", where=write)
    path = catalogue_path(catalogue)
    add_entry(path, write, entry)
    return replace(result, written=str(path))


def _guide(source: Engine, target: Engine) -> Guide:
    if source.name == target.name:
        others = ", ".join(engine.name for engine in ENGINES if source.name in engine.guides())
        raise UsageError(f"is served by {source.title} already", where="--to", advice=f"Known from there: {others}.")
    guide = target.guides().get(source.name)
    if guide is None:
        known = [f"{old} to {engine.name}" for engine in ENGINES for old in engine.guides()]
        found = f"no guide from {source.title} to {target.title}"
        raise UsageError(found, where="--to", advice=f"Known: {', '.join(known)}.")
    return guide


def _translated(
    model: Model, source: Engine, target: Engine, guide: Guide
) -> tuple[tuple[SettingRow, ...], dict[str, Any]]:
    """What becomes of each setting, and the entry that follows."""
    rows: list[SettingRow] = []
    keys: dict[str, Any] = {}
    args: list[str] = []
    env: dict[str, str] = {}
    for path, value in _settings(model, source):
        counterpart = guide.settings.get(path)
        if counterpart is None and path.startswith("env/"):
            counterpart = Counterpart(f"no counterpart is known here; {target.title} may ignore it")
        if counterpart is None:
            keys[path] = value
            rows.append(SettingRow(path, _shown(value), _spelled(target, path, value), ""))
            continue
        text = _shown(value)
        new_args = counterpart.args(text) if counterpart.args else ()
        new_env = dict(counterpart.env(text)) if counterpart.env else {}
        new_keys = dict(counterpart.keys(text)) if counterpart.keys else {}
        args += new_args
        env |= new_env
        keys |= new_keys
        becomes = [" ".join(new_args)] if new_args else []
        becomes += [f"{name}={each}" for name, each in new_env.items()]
        becomes += [_spelled(target, key, each) for key, each in new_keys.items() if each is not None]
        rows.append(SettingRow(path, text, ", ".join(becomes), counterpart.note))
    return tuple(rows), _entry(model, target, keys, args, env)


def _settings(model: Model, source: Engine) -> Iterator[tuple[str, Any]]:
    """What the entry says, by path; a variable that another key sets goes by that key."""
    for key in _PLAIN_KEYS:
        value = getattr(model, key)
        if value is not None and value != getattr(Model("", ""), key):
            yield key, value
    for name, limit in model.limits.known().items():
        yield f"limits/{name}", limit
    for variable, text in model.env.items():
        twin = source.accepts.twins.get(variable)
        yield ("/".join(twin) if twin else f"env/{variable}"), _number(text) if twin and twin[0] == "limits" else text


def _number(text: str) -> int | float | str:
    try:
        return int(text)
    except ValueError:
        return float(text) if text.replace(".", "", 1).isdigit() else text


def _spelled(target: Engine, path: str, value: Any) -> str:
    """`--max-model-len 8192` for a limit, the key itself for what is not a limit."""
    section, _, name = path.partition("/")
    if section != "limits":
        return f"{path}: {value}" if path != "repo" else str(value)
    option = target.limit_names(target.version(target.accepts.newest)).get(name)
    return f"{option} {value}" if option else f"{name}: {value}"


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _entry(
    model: Model, target: Engine, keys: Mapping[str, Any], args: list[str], env: Mapping[str, str]
) -> dict[str, Any]:
    entry: dict[str, Any] = {key: value for key, value in keys.items() if "/" not in key and value is not None}
    entry["engine"] = {"name": target.name, **({"args": args} if args else {})}
    limits = {key.partition("/")[2]: value for key, value in keys.items() if key.startswith("limits/")}
    known = target.limit_names(target.version(target.accepts.newest))
    limits = {name: value for name, value in limits.items() if value is not None and name in known}
    if limits:
        entry["limits"] = limits
    if bounds := model.slo.as_dict():
        entry["slo"] = dict(bounds)
    if env:
        entry["env"] = dict(env)
    return entry


def _refusal(name: str, entry: Mapping[str, Any], target: Engine) -> str | None:
    """Why the new engine would not take the entry."""
    text = "\n".join(["models:", *entry_lines(name, entry), ""])
    try:
        model = parse_catalogue(text, name, accepted()).models[name]
        version = target.version(model.engine.version)
        target.invocation(model, version, Place("127.0.0.1", 8080))
        target.container(model, version, with_token=False)
    except UsageError as error:
        return str(error)
    return None
