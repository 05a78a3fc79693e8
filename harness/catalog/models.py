"""Reads models.yaml: Model, what can be served, with its limits and its SLO."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from harness.catalog.accepts import Accepts
from harness.catalog.document import CatalogueError, Mistake, Value, parse, read_text
from harness.catalog.edit import entry_lines, with_entry, with_limits, with_values, write_whole
from harness.catalog.limits import Limits
from harness.catalog.schema import (
    DEFAULT_ENGINE,
    KEYS,
    NAME,
    NAME_EXPECTED,
    Layer,
    contradictions,
    engine_name,
    expected_one_of,
    merge,
    plain,
    read_layer,
    unknown_words,
)
from harness.catalog.shapes import ModelShape
from harness.catalog.slo import Slo, slo_from_mapping
from harness.errors import UsageError

_SHAPE_REQUIRED = tuple(
    each.name for each in dataclasses.fields(ModelShape) if each.default is dataclasses.MISSING and each.name != "name"
)


@dataclass(frozen=True)
class EngineChoice:
    """Which engine serves: its name and version, or an image, or a command that replaces it.

    image: as given, instead of the version's own. command: a program and its arguments. variant: the kind of image.
    args: further arguments of the engine, passed on unchanged.
    """

    name: str = DEFAULT_ENGINE
    version: str = "3.3.7"
    image: str | None = None
    command: tuple[str, ...] = ()
    variant: str = "cuda"
    args: tuple[str, ...] = ()


@dataclass(frozen=True)
class Model:
    """One entry of models.yaml, defaults applied. start_timeout: seconds. price_per_gpu_hour: USD.

    file: of the repo the one that is served, where the engine serves single files. weight_bytes: the exact size of the
    weights' files, where it is known. shape: only where the entry gives one.
    """

    name: str
    repo: str
    revision: str | None = None
    file: str | None = None
    gpu: str | None = None
    gpus: int = 1
    dtype: str | None = None
    quantize: str | None = None
    kv_cache_dtype: str | None = None
    engine: EngineChoice = field(default_factory=EngineChoice)
    limits: Limits = field(default_factory=Limits)
    slo: Slo = field(default_factory=Slo)
    env: Mapping[str, str] = field(default_factory=dict)
    price_per_gpu_hour: float | None = None
    price_source: str | None = None
    context_length: int | None = None
    answer_tokens: int | None = None
    start_timeout: float = 1200.0
    replicas: int = 1
    port: int | None = None
    listen: str = "127.0.0.1"
    trust_remote_code: bool = False
    weight_bytes: int | None = None
    shape: ModelShape | None = None

    @property
    def is_local(self) -> bool:
        """Whether `repo` names a directory instead of a Hub id."""
        return self.repo.startswith(("/", "~", "./", "../"))


@dataclass(frozen=True)
class Catalogue:
    """All entries of one file, in its order. engine: what one gets that names none."""

    path: str
    models: Mapping[str, Model]
    engine: EngineChoice = EngineChoice()

    def find(self, name: str) -> Model:
        """The entry of this name, or the only one that serves this Hub id.

        Raises UsageError: unknown, with the nearest names; or a Hub id that several entries serve.
        """
        if name in self.models:
            return self.models[name]
        wanted = name.lower()
        serving = [model for model in self.models.values() if wanted in (model.name.lower(), model.repo.lower())]
        if len(serving) == 1:
            return serving[0]
        if serving:
            names = ", ".join(model.name for model in serving)
            raise UsageError(f"{name!r} is served by several entries", where=self.path, advice=f"Name one of {names}.")
        raise UsageError(f"unknown model {name!r}", where=self.path, advice=self._offer(wanted))

    def first(self) -> Model:
        """The entry that `demo` and `emulate` take when none is named."""
        return next(iter(self.models.values()))

    def _offer(self, wanted: str) -> str:
        word = wanted.rpartition("/")[2]
        by_repo = {model.repo.rpartition("/")[2].lower(): model.name for model in self.models.values()}
        near = difflib.get_close_matches(word, self.models, n=3, cutoff=0.5) or [
            by_repo[repo] for repo in difflib.get_close_matches(word, by_repo, n=3, cutoff=0.5)
        ]
        if near:
            return f"Did you mean {', '.join(near)}? `harness models list` shows all."
        return f"Known: {', '.join(self.models)}."


Engines = Mapping[str, Accepts]
"""What each known engine accepts, by its name; harness.engines has it."""


def load_catalogue(path: str | Path | None = None, engines: Engines | None = None) -> Catalogue:
    """Read and check a catalogue. None: models.yaml of the working directory, else the one that ships with harness.

    engines: without it, names and words of engines are not checked, nor versions filled in.
    Raises CatalogueError (a UsageError) that lists every mistake of the file, one line each; UsageError where there is
    no such file or it cannot be read.
    """
    return parse_catalogue(*catalogue_text(path), engines)


def catalogue_text(path: str | Path | None = None) -> tuple[str, str]:
    """The text of the same file, and the name that mistakes are reported under. Raises UsageError likewise."""
    if path is None and not Path("models.yaml").is_file():
        with as_file(_packaged()) as packaged:
            return read_text(packaged), "models.yaml (packaged)"
    chosen = Path("models.yaml" if path is None else path)
    return read_text(chosen), str(chosen)


def catalogue_path(path: str | Path | None = None) -> Path:
    """The file that a command may write to. Raises UsageError where only the packaged one is there."""
    chosen = Path("models.yaml" if path is None else path)
    if not chosen.is_file():
        raise UsageError("no such file", where=str(chosen), advice="Name a catalogue with --catalogue FILE.")
    return chosen


def _packaged() -> Any:
    """The wheel's copy; in an editable checkout there is none, and the repository's own file takes its place."""
    packaged = files("harness").joinpath("data/models.yaml")
    return packaged if packaged.is_file() else Path(__file__).resolve().parents[2] / "models.yaml"


def parse_catalogue(text: str, shown: str = "models.yaml", engines: Engines | None = None) -> Catalogue:
    """A catalogue from its text. shown: the name that mistakes are reported under. Raises CatalogueError."""
    root, mistakes = parse(text, shown)
    defaults, entries = _sections(root, mistakes)
    models = {}
    for name, entry in entries.items():
        model = _model(name, entry, defaults, mistakes, engines)
        if model is not None:
            models[name] = model
    if mistakes:
        raise CatalogueError(shown, list(dict.fromkeys(mistakes)))
    return Catalogue(shown, models, _default_engine(defaults, engines))


def _default_engine(defaults: Layer, engines: Engines | None) -> EngineChoice:
    values = plain(defaults).get("engine", {})
    accepts = (engines or {}).get(engine_name(defaults))
    newest = {} if accepts is None else {"version": accepts.newest}
    return EngineChoice(**{**newest, **values})


def _sections(root: Value, mistakes: list[Mistake]) -> tuple[Layer, Mapping[str, Value]]:
    """The defaults, read, and the entries, unread."""
    if root.kind != "mapping":
        mistakes.append(Mistake(root.line, "", f"expected the keys defaults and models, found {root.found}"))
        return {}, {}
    for name, value in root.entries.items():
        if name not in ("defaults", "models") and not name.startswith("x-"):
            near = difflib.get_close_matches(name, ("defaults", "models"), n=1)
            hint = f"did you mean {near[0]}?" if near else "known: defaults, models, and x-... for your own anchors"
            mistakes.append(Mistake(value.line, name, f"unknown key; {hint}"))
    defaults: Layer = {}
    if "defaults" in root.entries:
        defaults = read_layer(root.entries["defaults"], "defaults", mistakes)
        if "repo" in defaults:
            repo = defaults.pop("repo")
            mistakes.append(Mistake(repo.line, "defaults/repo", "expected in each entry, found for all of them"))
    models = root.entries.get("models")
    if models is None:
        mistakes.append(Mistake(None, "models", "expected at least one entry, found no such key"))
    elif models.kind != "mapping" or not models.entries:
        found = "an empty mapping" if models.kind == "mapping" else models.found
        mistakes.append(Mistake(models.line, "models", f"expected at least one entry, found {found}"))
    return defaults, models.entries if models else {}


def _model(name: str, entry: Value, defaults: Layer, mistakes: list[Mistake], engines: Engines | None) -> Model | None:
    key = f"models/{name}"
    before = len(mistakes)
    if not NAME.fullmatch(name):
        hint = f"; {name.lower()} would do" if NAME.fullmatch(name.lower()) else ""
        mistakes.append(Mistake(entry.line, key, f"{NAME_EXPECTED}, found '{name}'{hint}"))
    own = read_layer(entry, key, mistakes)
    if entry.kind != "mapping":
        if entry.kind == "null":
            mistakes.append(
                Mistake(entry.line, key, f"expected a mapping of {', '.join(list(KEYS)[:3])}, ..., found nothing")
            )
        return None
    if "repo" not in entry.entries or entry.entries["repo"].kind == "null":
        mistakes.append(Mistake(entry.line, f"{key}/repo", "expected a Hub id or a directory, found nothing"))
    layer = merge(defaults, own)
    accepts = _engine(layer, entry, mistakes, engines)
    mistakes.extend(contradictions(layer, accepts))
    values = plain(layer)
    missing = [field for field in _SHAPE_REQUIRED if field not in values.get("shape", {})]
    if values.get("shape") and missing:
        mistakes.append(Mistake(entry.line, f"{key}/shape", f"expected also {', '.join(missing)}, found nothing"))
    return _build(name, values, accepts) if len(mistakes) == before else None


def _engine(layer: Layer, entry: Value, mistakes: list[Mistake], engines: Engines | None) -> Accepts | None:
    """What the entry's engine accepts, words that it does not noted; None where that is not known."""
    if engines is None:
        return None
    accepts = engines.get(engine_name(layer))
    if accepts is None:
        setting = layer["engine"]["name"]
        mistakes.append(Mistake(setting.line, setting.key, expected_one_of(tuple(engines), setting.value)))
        return None
    mistakes.extend(unknown_words(layer, accepts))
    return accepts


def _build(name: str, values: dict[str, Any], accepts: Accepts | None) -> Model:
    shape = values.pop("shape", None)
    repo = values["repo"]
    if accepts is not None:
        values["engine"] = {"version": accepts.newest, **values.get("engine", {})}
        if kv_cache := values.get("kv_cache_dtype"):
            values["kv_cache_dtype"] = accepts.kv_cache_aliases.get(kv_cache, kv_cache)
    return Model(
        name=name,
        **{
            **values,
            "engine": EngineChoice(**values.get("engine", {})),
            "limits": Limits(**values.get("limits", {})),
            "slo": slo_from_mapping(values.get("slo", {})),
            "env": values.get("env", {}),
            "shape": ModelShape(name=repo, **shape) if shape else None,
        },
    )


def write_limits(
    path: str | Path, name: str, limits: Mapping[str, int | float], comments: Mapping[str, str] | None = None
) -> None:
    """Put limits that were found into the entry; every other character of the file stays.

    comments: why a limit is what it is, written behind it as `# probe: ...` and replaced by the next probe. Raises
    UsageError, and writes nothing, where the entry cannot be edited or the limits contradict what it says.
    """
    file = Path(path)
    text = read_text(file)
    before = parse_catalogue(text, str(path))
    model = before.find(name)
    changed = with_limits(text, str(path), model.name, limits, comments or {})
    after = parse_catalogue(changed, str(path))
    wanted = dataclasses.replace(model, limits=dataclasses.replace(model.limits, **limits))  # type: ignore[arg-type]
    _require_only_change(before, after, wanted)
    write_whole(file, changed)


def set_keys(path: str | Path, name: str, values: Mapping[str, Any]) -> None:
    """Set keys that the entry has to other values; every other character of the file stays. Raises UsageError."""
    file = Path(path)
    text = read_text(file)
    before = parse_catalogue(text, str(path))
    changed = with_values(text, str(path), name, values)
    _require_only_change(before, parse_catalogue(changed, str(path)), dataclasses.replace(before.find(name), **values))
    write_whole(file, changed)


def add_entry(path: str | Path, name: str, keys: Mapping[str, Any]) -> Model:
    """Append an entry to the file, which is made where there is none. Raises UsageError where the name is taken."""
    file = Path(path)
    if file.exists():
        text = read_text(file)
        known = parse_catalogue(text, str(path)).models
        if name in known:
            raise UsageError(
                f"there is an entry {name!r} already", where=str(path), advice="Choose another with --name."
            )
        changed = with_entry(text, str(path), name, keys)
    else:
        known = {}
        changed = "\n".join(["models:", *entry_lines(name, keys), ""])
    after = parse_catalogue(changed, str(path))
    _require_only_change(Catalogue(str(path), known), after, after.models[name])
    write_whole(file, changed)
    return after.models[name]


def _require_only_change(before: Catalogue, after: Catalogue, wanted: Model) -> None:
    """Holds the edited text against what it should say, so that an unusual file is refused and not spoilt."""
    if after.models != {**before.models, wanted.name: wanted}:
        raise UsageError("cannot be edited in the form that it has", where=before.path, advice="Edit it by hand.")
