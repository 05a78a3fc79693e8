"""`harness models`: list the catalogue, check whether entries fit their GPUs, add entries, update them."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.catalog.gpus import Gpu, find_gpu, gpus
from harness.catalog.models import Catalogue, EngineChoice, Model, add_entry, catalogue_path, set_keys
from harness.catalog.schema import expected_one_of
from harness.catalog.shapes import ModelShape, find_shape, kv_bytes_per_token, parameters
from harness.catalog.text_files import NOTHING_READ, TextFiles
from harness.engines import ENGINES, engine_named, load_catalogue, support_of
from harness.engines.support import Architecture, NamedArchitecture, Support
from harness.errors import HarnessError, UsageError
from harness.sizing.check import Fit, cards_text, check, check_text
from harness.sizing.known import shape_of, size_of_files
from harness.stack import machine
from harness.units import GIB, format_bytes, format_count

if TYPE_CHECKING:
    from harness.catalog.hub import HubModel


@dataclass(frozen=True)
class EntryOverrides:
    """What the command line sets over an entry. engine: a name, or NAME:VERSION."""

    gpu: str | None = None
    gpus: int | None = None
    dtype: str | None = None
    quantize: str | None = None
    engine: str | None = None

    def over(self, model: Model) -> Model:
        """The entry with them. Raises UsageError for a word that the engine does not know."""
        changed = model
        if self.engine is not None:
            changed = dataclasses.replace(changed, engine=engine_choice(self.engine))
        if self.quantize is not None:
            method = None if self.quantize == "none" else self.quantize
            changed = dataclasses.replace(changed, quantize=method, dtype=None)
        if self.dtype is not None:
            changed = dataclasses.replace(changed, dtype=self.dtype)
        if self.gpus is not None:
            changed = dataclasses.replace(changed, gpus=self.gpus)
        accepts = engine_named(changed.engine.name).accepts
        for option, word, words in (
            ("--quantize", changed.quantize, accepts.quantize),
            ("--dtype", changed.dtype, accepts.dtypes),
        ):
            if word is not None and words and word not in words:
                raise UsageError(expected_one_of(words, word), where=option)
        return changed


def engine_choice(text: str) -> EngineChoice:
    """`vllm` or `vllm:0.32.0`. Raises UsageError for an unknown engine, or what is not a version."""
    name, _, version = text.partition(":")
    engine = engine_named(name, "--engine")
    engine.version(version or engine.accepts.newest)
    return EngineChoice(name=name, version=version or engine.accepts.newest)


@dataclass(frozen=True)
class CatalogueRow:
    """One entry of the catalogue. weight_bytes: None where nobody knows the shape."""

    model: Model
    weight_bytes: int | None

    def as_json(self) -> dict[str, Any]:
        model = self.model
        return {
            "name": model.name,
            "repo": model.repo,
            "revision": model.revision,
            "engine": model.engine.name,
            "engine_version": model.engine.version,
            "gpu": model.gpu,
            "gpus": model.gpus,
            "dtype": model.dtype,
            "quantize": model.quantize,
            "weight_bytes": self.weight_bytes,
            "context_length": model.context_length,
            "limits": dataclasses.asdict(model.limits),
            "slo": model.slo.as_dict(),
            "price_per_gpu_hour": model.price_per_gpu_hour,
        }


def list_models(catalogue: str | Path | None = None) -> list[CatalogueRow]:
    """All entries in the file's order. Raises UsageError for a wrong file."""
    return [CatalogueRow(model, size_of_files(model)) for model in load_catalogue(catalogue).models.values()]


def list_text(rows: Sequence[CatalogueRow]) -> str:
    """A table of the entries."""
    lines = [("name", "model", "GPU", "weights", "SLO")]
    for row in rows:
        model = row.model
        card = f"{model.gpus} x {model.gpu}" if model.gpu and model.gpus > 1 else model.gpu or "any"
        weights = "?" if row.weight_bytes is None else format_bytes(row.weight_bytes)
        lines.append((model.name, model.repo, card, weights, str(model.slo)))
    return _table(lines)


def check_models(
    names: Sequence[str],
    *,
    gpu: str | None = None,
    catalogue: str | Path | None = None,
    settings: EntryOverrides | None = None,
) -> list[Fit]:
    """Whether these entries (all, where none is named) fit their GPUs, or the given one, by their engines' memory laws.

    A Hub id that is not an entry is looked up. Raises UsageError: wrong catalogue, unknown name, no GPU named and none
    here. MissingError: a shape that only the Hub knows, and the Hub cannot be asked.
    """
    settings = settings or EntryOverrides(gpu=gpu)
    return [check(model, _gpu_of(model, settings.gpu)) for model in _chosen(names, catalogue, settings)]


def check_all_gpus(
    names: Sequence[str], *, catalogue: str | Path | None = None, settings: EntryOverrides | None = None
) -> list[list[Fit]]:
    """For each entry its verdict on every card of the sheets. Raises like `check_models`."""
    models = [_with_shape(model) for model in _chosen(names, catalogue, settings or EntryOverrides())]
    return [[check(model, card) for card in gpus().values()] for model in models]


def all_gpus_text(verdicts: Sequence[Sequence[Fit]]) -> str:
    """One table per model: what is left for the KV cache on each card, or why not; last the cheapest that fits."""
    blocks = []
    for each in verdicts:
        rows = [("GPU", "memory", "USD/h", "verdict")]
        for fit in each:
            price = fit.gpu.price_per_hour
            said = f"{fit.verdict}: {format_count(fit.tokens or 0)} tokens of KV cache" if fit.good else _why_not(fit)
            cost = "?" if price is None else f"{price * fit.gpus:.2f}"
            rows.append((cards_text(fit.gpu, fit.gpus), format_bytes(fit.gpu.visible_bytes * fit.gpus), cost, said))
        fitting = [fit for fit in each if fit.good]
        priced = [fit for fit in fitting if fit.gpu.price_per_hour is not None]
        cheapest = min(priced, key=lambda fit: fit.gpu.price_per_hour or 0.0, default=None)
        last = f"{each[0].name}: does not fit any card of the sheets"
        if fitting:
            last = f"{each[0].name}: fits on {len(fitting)} of {len(each)} cards"
        if any(fit.may_die for fit in fitting):
            last += " (starts: may die under load, see `check` with --gpu)"
        if cheapest is not None:
            last += f", the cheapest is {cards_text(cheapest.gpu, cheapest.gpus)}"
        blocks.append(f"{_table(rows)}\n{last}")
    return "\n\n".join(blocks)


def _why_not(fit: Fit) -> str:
    if fit.support is not None and fit.support.kind == "no":
        return "cannot be served by its engine"
    if fit.fits is None:
        return "cannot say"
    missing = fit.as_json()["missing_bytes"]
    return f"lacks {format_bytes(missing)}" if missing else f"does not fit: {fit.reason}"


def _chosen(names: Sequence[str], catalogue: str | Path | None, settings: EntryOverrides) -> list[Model]:
    known = load_catalogue(catalogue)
    models = [_found(known, name) for name in names] or list(known.models.values())
    return [settings.over(model) for model in models]


def _found(known: Catalogue, name: str) -> Model:
    try:
        return known.find(name)
    except UsageError:
        if name.count("/") != 1 or name.startswith((".", "/", "~")):
            raise
        return _of_the_hub(name)


def _of_the_hub(repo: str) -> Model:
    """An entry as `add` would write it, for a Hub id that is in no catalogue."""
    from harness.catalog import hub

    found = hub.describe(repo)
    draft = Model(name=repo, repo=found.repo, shape=found.shape, weight_bytes=found.weight_bytes)
    return dataclasses.replace(draft, **_precision(found, None))


def _with_shape(model: Model) -> Model:
    """The Hub is asked once, not for every card."""
    try:
        return dataclasses.replace(model, shape=shape_of(model))
    except UsageError:
        return model


def _gpu_of(model: Model, gpu: str | None) -> Gpu:
    name = gpu or model.gpu
    if name is not None:
        return find_gpu(name)
    here = machine.gpus_here()
    if not here:
        raise UsageError(
            "names no GPU, and there is none here", where=f"models/{model.name}", advice="Name one with --gpu."
        )
    return find_gpu(here[0].name)


@dataclass(frozen=True)
class AddedModel:
    """The entry that was written. size_source: where the weights' size is from. fit: None without a GPU to check.

    text_files: its tokenizer and sampling. notes: what is odd about the model, or was chosen for it.
    """

    path: str
    model: Model
    size_source: str
    gated: bool
    fit: Fit | None
    support: Support
    licence: str | None = None
    notes: tuple[str, ...] = ()
    text_files: TextFiles = NOTHING_READ

    @property
    def good(self) -> bool:
        """Nothing says that it cannot be served as it is written."""
        return self.support.kind != "no" and (self.fit is None or self.fit.fits is not False)

    def as_json(self) -> dict[str, Any]:
        return {
            **CatalogueRow(self.model, self.model.weight_bytes).as_json(),
            "path": self.path,
            "size_source": self.size_source,
            "gated": self.gated,
            "licence": self.licence,
            "revision": self.model.revision,
            "text_files": self.text_files.as_json(),
            "support": self.support.as_json(),
            "notes": list(self.notes),
            "fit": self.fit.as_json() if self.fit else None,
        }


def add_model(
    repo: str,
    *,
    name: str | None = None,
    gpu: str | None = None,
    catalogue: str | Path | None = None,
    settings: EntryOverrides | None = None,
) -> AddedModel:
    """Look the model up and append it to the catalogue (models.yaml here, made where there is none).

    Raises UsageError: unknown model or GPU, name taken or unfit. MissingError: gated, or the Hub cannot be reached.
    """
    from harness.catalog import hub

    settings = settings or EntryOverrides(gpu=gpu)
    path = Path("models.yaml" if catalogue is None else catalogue)
    card = find_gpu(settings.gpu) if settings.gpu else None
    found = hub.describe(repo)
    draft = Model(name=name or _name_for(repo), repo=found.repo, shape=found.shape)
    draft = dataclasses.replace(
        draft, engine=load_catalogue(path).engine if path.is_file() else EngineChoice(), **_precision(found, card)
    )
    asked = found.shape or NamedArchitecture(found.model_type, found.architecture)
    engine, notes = _engine_for(draft, asked, settings)
    wanted = settings.over(draft if engine is None else dataclasses.replace(draft, engine=engine))
    keys: dict[str, Any] = {"repo": found.repo}
    keys |= {"revision": found.revision} if found.revision else {}
    keys |= {"gpu": card.name} if card else {}
    keys |= {"gpus": wanted.gpus} if wanted.gpus > 1 else {}
    keys |= {key: value for key in ("dtype", "quantize") if (value := getattr(wanted, key)) is not None}
    keys |= {"engine": {"name": engine.name, "version": engine.version}} if engine is not None else {}
    keys |= {"context_length": found.shape.context} if found.shape is not None else {}
    keys |= {"weight_bytes": found.weight_bytes} if found.weight_bytes is not None else {}
    if found.shape is not None and not _in_table(found):
        keys["shape"] = _shape_keys(found.shape)
    if found.no_shape is not None:
        notes = (*notes, f"Its memory cannot be computed before a start: {found.no_shape}.")
    add_entry(path, draft.name, keys)
    model = load_catalogue(path).models[draft.name]
    fit = dataclasses.replace(check(model, card), support=support_of(model, asked)) if card else None
    support = support_of(model, asked)
    notes = (*found.notes, *notes)
    return AddedModel(
        str(path), model, found.size_source, found.gated, fit, support, found.licence, notes, found.text_files
    )


def _engine_for(
    draft: Model, asked: Architecture, settings: EntryOverrides
) -> tuple[EngineChoice | None, tuple[str, ...]]:
    """The engine to write into the entry, None for the catalogue's own, which the draft has; what is said of it.

    Where nobody chose and the catalogue's own does not serve it, the first that does is taken.
    """
    if settings.engine is not None:
        return engine_choice(settings.engine), ()
    if support_of(draft, asked).kind != "no":
        return None, ()
    own = engine_named(draft.engine.name)
    # llama.cpp serves other files than the Hub's repositories mostly hold.
    others = [each for each in ENGINES if each.name not in ("llamacpp", own.name)]
    choices = [EngineChoice(name=each.name, version=each.accepts.newest) for each in others]
    for kind in ("native", "fallback"):
        for choice in choices:
            if support_of(dataclasses.replace(draft, engine=choice), asked).kind == kind:
                instead = f"its entry says {choice.name} {choice.version}"
                return choice, (f"{own.title} {draft.engine.version} does not serve it: {instead}.",)
    return None, ()


def _in_table(found: HubModel) -> bool:
    """Whether harness's own table has this very shape; what the entry says by other keys does not count."""
    known = find_shape(found.repo)
    if known is None or found.shape is None:
        return False
    if found.shape.stored != known.stored and found.quantize not in _SAID:
        return False
    kept = ("name", "stored", "architecture", "vision_parameters")
    return dataclasses.replace(found.shape, **{key: getattr(known, key) for key in kept}) == known


def add_text(added: AddedModel) -> str:
    """What was written, and what to do next."""
    model = added.model
    known = model.weight_bytes
    size = "weights of unknown size" if known is None else f"{format_bytes(known)} of weights by {added.size_source}"
    lines = [f"{added.path}: added {model.name} ({model.repo}, {size})"]
    if added.licence is not None:
        lines.append(f"licence: {added.licence}")
    if model.revision is not None:
        lines.append(f"pinned to commit {model.revision[:12]}")
    if model.shape is not None:
        lines.append(f"{format_count(parameters(model.shape) / 1e6)} million parameters, {_kv_text(model)}")
    if added.gated:
        lines.append(f"It is gated: accept its licence at https://huggingface.co/{model.repo} and set HF_TOKEN.")
    lines += added.notes
    lines.append(added.support.reason if added.fit is None else check_text([added.fit]))
    if added.support.kind == "no":
        lines.append("It cannot be served as it is written: choose another engine or version in its entry.")
    elif added.fit is not None and added.fit.fits is False:
        lines.append("It does not fit as it is written: change its entry as said above, or take another card.")
    else:
        lines.append(f"Next: harness up {model.name}")
    return "\n".join(lines)


def _kv_text(model: Model) -> str:
    assert model.shape is not None
    per_token = kv_bytes_per_token(model.shape, model.kv_cache_dtype, 1, model.dtype)
    return f"{format_bytes(per_token)} of KV cache per token, {format_count(GIB / per_token)} tokens per GiB"


def _name_for(repo: str) -> str:
    """`Qwen/Qwen2.5-7B-Instruct` -> `qwen2.5-7b`."""
    last = repo.rstrip("/").rpartition("/")[2].lower()
    for ending in ("-instruct", "-it", "-chat", "-hf"):
        last = last.removesuffix(ending)
    return re.sub(r"[^a-z0-9._-]+", "-", last).strip("._-")[:63]


_SAID = ("awq", "gptq", "exl2", "marlin", "fp8", "compressed-tensors")
"""Methods that an entry says by `quantize`; of others the engine finds out by itself."""


def _precision(found: HubModel, gpu: Gpu | None) -> dict[str, Any]:
    """The checkpoint's own method, which TGI would find by itself, or its dtype where the card has it."""
    if found.quantize in _SAID:
        return {"quantize": str(found.quantize)}
    if found.quantize is not None or found.dtype not in ("bfloat16", "float16"):
        return {}
    old = gpu is not None and (0, 0) < gpu.compute_capability < (8, 0)
    return {"dtype": "float16" if old else str(found.dtype)}


def _shape_keys(shape: ModelShape) -> dict[str, Any]:
    """The shape's fields that differ from their defaults."""
    return {
        field.name: getattr(shape, field.name)
        for field in dataclasses.fields(ModelShape)
        if field.name != "name" and getattr(shape, field.name) != field.default
    }


@dataclass(frozen=True)
class Update:
    """What the Hub says now of an entry. changes: key -> (as written, now). problem: why it could not be asked."""

    name: str
    changes: dict[str, tuple[Any, Any]]
    problem: str | None = None
    written: bool = False

    def as_json(self) -> dict[str, Any]:
        changes = {key: {"written": old, "now": new} for key, (old, new) in self.changes.items()}
        return {"name": self.name, "changes": changes, "problem": self.problem, "written": self.written}


def update_models(names: Sequence[str], *, catalogue: str | Path | None = None, write: bool = False) -> list[Update]:
    """Compare entries with the Hub as it is now: revision, name, size. write: put the new ones into the file.

    An entry without a revision, or with a branch or a tag, gets the commit; what else it does not say it keeps unsaid.
    Raises UsageError like `check_models`.
    """
    from harness.catalog import hub

    known = load_catalogue(catalogue)
    models = [known.find(name) for name in names] or list(known.models.values())
    found = []
    for model in models:
        if model.is_local:
            continue
        try:
            now = hub.describe(model.repo)
        except HarnessError as error:
            found.append(Update(model.name, {}, str(error)))
            continue
        pairs: dict[str, tuple[Any, Any]] = {
            "repo": (model.repo, now.repo),
            "revision": (model.revision, now.revision),
            "weight_bytes": (model.weight_bytes, now.weight_bytes),
        }
        changes = {
            key: (old, new)
            for key, (old, new) in pairs.items()
            if new and old != new and (old is not None or key == "revision")
        }
        if write and changes:
            set_keys(catalogue_path(catalogue), model.name, {key: new for key, (_, new) in changes.items()})
        found.append(Update(model.name, changes, written=write and bool(changes)))
    return found


def update_text(updates: Sequence[Update]) -> str:
    """One line per entry."""
    lines = []
    for each in updates:
        if each.problem is not None:
            lines.append(f"{each.name}: cannot be looked up: {each.problem}")
        elif not each.changes:
            lines.append(f"{each.name}: as on the Hub")
        else:
            pairs = each.changes.items()
            told = ", ".join(f"{key} {'none' if old is None else old} -> {new}" for key, (old, new) in pairs)
            lines.append(f"{each.name}: {told}{' (written)' if each.written else ''}")
    if any(each.changes and not each.written for each in updates):
        lines.append("Nothing was changed; --write puts these into the file.")
    return "\n".join(lines)


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
