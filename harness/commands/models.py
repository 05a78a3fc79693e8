"""`harness models`: show the catalogue, say whether its entries fit their GPUs, and add entries to it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.catalog.config_json import shape_from_config
from harness.catalog.gpus import Gpu, find_gpu, gpus
from harness.catalog.limits import Limits
from harness.catalog.models import Model, add_entry
from harness.catalog.shapes import ModelShape, find_shape, kv_bytes_per_token, parameters
from harness.catalog.shapes import weight_bytes as estimated_weight_bytes
from harness.engines import engine_of, load_catalogue, stored_as
from harness.errors import UsageError
from harness.simulator import fit as law_of_memory
from harness.simulator.fit import LAWS, Candidate, Fits, Lacks, describe, weights_bytes
from harness.simulator.world import World
from harness.stack import machine
from harness.units import GIB, format_bytes, format_count

_MOST_REMEDIES = 3
_A_CHAT = 2048


@dataclass(frozen=True)
class Row:
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


def list_models(catalogue: str | Path | None = None) -> list[Row]:
    """All entries in the file's order. Raises UsageError for a wrong file."""
    return [Row(model, _weights(model, _known_shape(model))) for model in load_catalogue(catalogue).models.values()]


def list_text(rows: Sequence[Row]) -> str:
    """A table of the entries."""
    lines = [("name", "model", "GPU", "weights", "SLO")]
    for row in rows:
        model = row.model
        card = f"{model.gpus} x {model.gpu}" if model.gpu and model.gpus > 1 else model.gpu or "any"
        weights = "?" if row.weight_bytes is None else format_bytes(row.weight_bytes)
        lines.append((model.name, model.repo, card, weights, str(model.slo)))
    return _table(lines)


@dataclass(frozen=True)
class Fit:
    """Whether one model fits one kind of GPU. fits: None where the engine's memory cannot be reckoned.

    outcome: the sum, None where it is not the memory that decides. remedies: what would fit instead, each tried by the
    same arithmetic. estimate: what the figures rest on, where that is less than measured starts.
    """

    name: str
    gpu: Gpu
    gpus: int
    reason: str
    fits: bool | None
    outcome: Fits | Lacks | None
    remedies: tuple[str, ...] = ()
    estimate: str = ""

    def as_json(self) -> dict[str, Any]:
        found = self.outcome if isinstance(self.outcome, Fits) else None
        return {
            "name": self.name,
            "gpu": self.gpu.name,
            "gpus": self.gpus,
            "fits": self.fits,
            "reason": self.reason,
            "max_batch_total_tokens": found.tokens if found else None,
            "max_total_tokens": found.max_total_tokens if found else None,
            "max_batch_prefill_tokens": found.max_batch_prefill_tokens if found else None,
            "gpu_memory_bytes": self.gpu.visible_bytes,
            "memory_bytes": {part.name: part.bytes for part in self.outcome.parts} if self.outcome else {},
            "missing_bytes": self.outcome.missing_bytes if isinstance(self.outcome, Lacks) else 0,
            "remedies": list(self.remedies),
            "estimate": self.estimate or None,
        }


def check_models(names: Sequence[str], *, gpu: str | None = None, catalogue: str | Path | None = None) -> list[Fit]:
    """Whether these entries (all, where none is named) fit their GPUs, or the given one, by their engines' memory laws.

    Raises UsageError: wrong catalogue, unknown name, no GPU named and none here. MissingError: a shape that only the
    Hub knows, and the Hub cannot be asked.
    """
    known = load_catalogue(catalogue)
    models = [known.find(name) for name in names] or list(known.models.values())
    return [check(model, _gpu_of(model, gpu)) for model in models]


_WORDS = {True: "fits", False: "DOES NOT FIT", None: "CANNOT SAY"}


def check_text(verdicts: Sequence[Fit]) -> str:
    """One line per model; for one that does not fit, or one alone, the sum with its parts."""
    lines = []
    for each in verdicts:
        lines.append(f"{_WORDS[each.fits]:<12}  {each.name}: {each.reason}")
        if each.outcome is not None and (len(verdicts) == 1 or not each.fits):
            lines += [f"    {line}" for line in describe(each.outcome).splitlines()]
        if each.outcome is not None and each.estimate:
            lines.append(f"    {each.estimate}; `harness probe` measures it")
        lines += [f"    would fit: {remedy}" for remedy in each.remedies]
    return "\n".join(lines)


def check(model: Model, gpu: Gpu, *, used_bytes: int = 0) -> Fit:
    """One model on one kind of GPU, by its engine's memory law. used_bytes: of each of these GPUs, by others."""
    engine = engine_of(model)
    try:
        law = engine.memory_law(model)
    except UsageError as error:  # limits that its engine does not have
        return Fit(model.name, gpu, model.gpus, error.found, False, None)
    if law is None:
        reason = f"how much memory {engine.title} takes in this form is not reckoned here; `harness probe` finds out"
        return Fit(model.name, gpu, model.gpus, reason, None, None)
    tried = _Tried(shape_of(model), gpu, used_bytes)
    estimate = LAWS[law.name].estimate
    refusal = tried.refusal(model, gpu)
    if refusal is not None:
        return Fit(model.name, gpu, model.gpus, refusal, False, None, _remedies(model, gpu, tried), estimate)
    candidate = tried.candidate(model, gpu)
    assert candidate is not None
    try:
        outcome = law_of_memory.start(candidate)
    except UsageError as error:  # shards that do not divide the heads
        return Fit(model.name, gpu, model.gpus, error.found, False, None, _remedies(model, gpu, tried), estimate)
    contradiction = outcome.contradiction if isinstance(outcome, Fits) else None
    fits = isinstance(outcome, Fits) and contradiction is None
    remedies = () if fits else _remedies(model, gpu, tried, outcome)
    reason = contradiction or _reason(model, gpu, outcome)
    return Fit(model.name, gpu, model.gpus, reason, fits, outcome, remedies, estimate)


@dataclass(frozen=True)
class _Tried:
    """What is the same in all settings that are tried. used_bytes: of the entry's own kind of GPU, by others."""

    shape: ModelShape
    gpu: Gpu
    used_bytes: int

    def candidate(self, model: Model, gpu: Gpu) -> Candidate | None:
        """The entry as its engine's law takes it. Where the exact size of the weights is known and larger than
        reckoned, the difference counts too.
        """
        law = engine_of(model).memory_law(model)
        if law is None:
            return None
        more, stored = 0, stored_as(model)
        if model.weight_bytes is not None:
            reckoned = estimated_weight_bytes(self.shape, stored, model.dtype)
            more = max(0, model.weight_bytes - reckoned) // model.gpus
        used = self.used_bytes if gpu is self.gpu else 0
        return Candidate(
            law=law.name,
            shape=self.shape,
            gpu=gpu,
            shards=model.gpus,
            dtype=model.dtype,
            quantize=stored,
            kv_cache_dtype=model.kv_cache_dtype,
            options=law.options,
            world=World(extra_at_load_bytes=more, used_by_others=used),
        )

    def refusal(self, model: Model, gpu: Gpu) -> str | None:
        """What the engine does not do on this card. Compute capability 0.0 stands for another maker's, which is not
        judged.
        """
        law, candidate = engine_of(model).memory_law(model), self.candidate(model, gpu)
        if law is None or candidate is None or gpu.compute_capability == (0, 0):
            return None
        for least, lacking in law.needs:
            if gpu.compute_capability < least:
                return f"{gpu.name} {lacking}"
        return law_of_memory.refusal(candidate)

    def fits(self, model: Model, gpu: Gpu) -> bool:
        try:
            candidate = self.candidate(model, gpu)
        except UsageError:
            return False
        return candidate is not None and self.refusal(model, gpu) is None and law_of_memory.fits(candidate)


def shape_of(model: Model) -> ModelShape:
    """From the entry, harness's own table, the directory, or the Hub, in this order. Raises like hub.describe."""
    known = _known_shape(model)
    if known is not None:
        return known
    from harness.catalog import hub  # half a second that the models of the table need not wait

    return hub.describe(model.repo, model.revision).shape


def _known_shape(model: Model) -> ModelShape | None:
    if model.shape is not None:
        return model.shape
    if not model.is_local:
        return find_shape(model.repo)
    config = Path(model.repo).expanduser() / "config.json"
    return shape_from_config(_json(config), model.repo) if config.is_file() else None


def _json(path: Path) -> dict[str, Any]:
    import json

    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError("cannot be read as JSON", where=str(path)) from error
    if not isinstance(document, dict):
        raise UsageError("expected a JSON object", where=str(path))
    return document


def size_of_weights(model: Model) -> int | None:
    """Bytes of the weights' files, as far as it can be said without asking the Hub."""
    return _weights(model, _known_shape(model))


def _weights(model: Model, shape: ModelShape | None) -> int | None:
    """The exact size where the entry has it, else what the shape amounts to."""
    if model.weight_bytes is not None or shape is None:
        return model.weight_bytes
    return estimated_weight_bytes(shape, stored_as(model), model.dtype)


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


def _reason(model: Model, gpu: Gpu, outcome: Fits | Lacks) -> str:
    cards, weights = _cards(gpu, model.gpus), format_bytes(weights_bytes(outcome))
    each = " each" if model.gpus > 1 else ""
    if isinstance(outcome, Lacks):
        return (
            f"on {cards} ({format_bytes(outcome.total_bytes)}{each}) {outcome.doing} lacks "
            f"{format_bytes(outcome.missing_bytes)}; the weights take {weights}{each}"
        )
    chats = outcome.usable_tokens // _A_CHAT
    longest = format_count(outcome.max_total_tokens)
    return (
        f"on {cards} beside {weights} of weights{each}: a KV cache of {format_count(outcome.tokens)} "
        f"tokens, one chat of up to {longest} or {format_count(chats)} of {format_count(_A_CHAT)}"
        f"{f'; {outcome.caution}' if outcome.caution else ''}"
    )


def _cards(gpu: Gpu, count: int) -> str:
    return gpu.name if count == 1 else f"{count} x {gpu.name}"


def _remedies(model: Model, gpu: Gpu, tried: _Tried, outcome: Fits | Lacks | None = None) -> tuple[str, ...]:
    """The nearest settings that fit, one of each kind, from the one that changes least."""
    found: list[str] = []
    for kind in _alternatives(model, gpu, outcome.longest if isinstance(outcome, Lacks) else None):
        fitting = (text for text, changed, card in kind if tried.fits(changed, card))
        found += [text for text in (next(fitting, None),) if text is not None]
    return tuple(found[:_MOST_REMEDIES])


Alternative = tuple[str, Model, Gpu]


def _alternatives(model: Model, gpu: Gpu, longest: int | None) -> Iterator[Iterator[Alternative]]:
    """Kinds of changes, each from small to large. longest: request that fits, where the engine fails at that."""
    if longest is not None and longest > _A_CHAT:
        most = longest // 1024 * 1024
        shorter = dataclasses.replace(model.limits, max_total_tokens=most)
        yield iter([(f"limits: {{max_total_tokens: {most}}}", dataclasses.replace(model, limits=shorter), gpu)])
    yield iter(_other_settings(model, gpu))
    law = engine_of(model).memory_law(model)
    yield (
        (f"quantize: {method}", dataclasses.replace(model, quantize=method, dtype=None), gpu)
        for method in (law.lighter if law is not None else ())
        if model.quantize is None
    )
    counts = (1, 2, 4, 8) if model.gpus not in (1, 2, 4, 8) else tuple(n for n in (2, 4, 8) if n > model.gpus)
    yield ((f"gpus: {count}", dataclasses.replace(model, gpus=count), gpu) for count in counts)
    larger = [card for card in gpus().values() if card.visible_bytes > gpu.visible_bytes and _is_offered(card, gpu)]
    more = f", gpus: {model.gpus}" if model.gpus > 1 else ""
    yield (
        (f"gpu: {card.name}{more}", model, card)
        for card in sorted(larger, key=lambda card: (card.visible_bytes, card.price_per_hour or 0))
    )


def _is_offered(card: Gpu, instead_of: Gpu) -> bool:
    """A card that can be rented, of the same maker."""
    return card.price_per_hour is not None and (card.compute_capability == (0, 0)) == (
        instead_of.compute_capability == (0, 0)
    )


def _other_settings(model: Model, gpu: Gpu) -> Iterator[Alternative]:
    if model.dtype == "bfloat16":
        yield "dtype: float16", dataclasses.replace(model, dtype="float16"), gpu
    if model.kv_cache_dtype is not None:
        yield "without kv_cache_dtype", dataclasses.replace(model, kv_cache_dtype=None), gpu
    if model.limits != Limits():
        yield "without its limits", dataclasses.replace(model, limits=Limits()), gpu


@dataclass(frozen=True)
class Added:
    """The entry that was written. size_source: where the weights' size is from. fit: None without a GPU to check."""

    path: str
    model: Model
    size_source: str
    gated: bool
    fit: Fit | None

    def as_json(self) -> dict[str, Any]:
        return {
            **Row(self.model, self.model.weight_bytes).as_json(),
            "path": self.path,
            "size_source": self.size_source,
            "gated": self.gated,
            "fit": self.fit.as_json() if self.fit else None,
        }


def add_model(
    repo: str, *, name: str | None = None, gpu: str | None = None, catalogue: str | Path | None = None
) -> Added:
    """Look the model up and append it to the catalogue (models.yaml here, made where there is none).

    Raises UsageError: unknown model or GPU, name taken or unfit. MissingError: gated, or the Hub cannot be reached.
    """
    from harness.catalog import hub

    path = Path("models.yaml" if catalogue is None else catalogue)
    card = find_gpu(gpu) if gpu else None
    found = hub.describe(repo)
    entry = name or _name_for(repo)
    keys: dict[str, Any] = {"repo": repo}
    keys |= {"revision": found.revision} if found.revision else {}
    keys |= {"gpu": card.name} if card else {}
    keys |= _precision(found.quantize, found.dtype, card)
    keys |= {"context_length": found.shape.context, "weight_bytes": found.weight_bytes}
    if find_shape(repo) != dataclasses.replace(found.shape, name=getattr(find_shape(repo), "name", "")):
        keys["shape"] = _shape_keys(found.shape)
    model = add_entry(path, entry, keys)
    return Added(str(path), model, found.size_source, found.gated, check(model, card) if card else None)


def add_text(added: Added) -> str:
    """What was written, and what to do next."""
    model = added.model
    size = f"{format_bytes(model.weight_bytes or 0)} of weights by {added.size_source}"
    lines = [f"{added.path}: added {model.name} ({model.repo}, {size})"]
    if model.shape is not None:
        lines.append(f"{format_count(parameters(model.shape) / 1e6)} million parameters, {_kv_text(model)}")
    if added.gated:
        lines.append(f"It is gated: accept its licence at https://huggingface.co/{model.repo} and set HF_TOKEN.")
    if added.fit is not None:
        lines.append(check_text([added.fit]))
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


def _precision(quantize: str | None, dtype: str | None, gpu: Gpu | None) -> dict[str, str]:
    """The checkpoint's own method, which TGI would find by itself, or its dtype where the card has it."""
    if quantize in ("awq", "gptq", "exl2", "marlin", "fp8", "compressed-tensors"):
        return {"quantize": str(quantize)}
    if quantize is not None or dtype not in ("bfloat16", "float16"):
        return {}
    old = gpu is not None and (0, 0) < gpu.compute_capability < (8, 0)
    return {"dtype": "float16" if old else str(dtype)}


def _shape_keys(shape: ModelShape) -> dict[str, Any]:
    """The shape's fields that differ from their defaults."""
    return {
        field.name: getattr(shape, field.name)
        for field in dataclasses.fields(ModelShape)
        if field.name != "name" and getattr(shape, field.name) != field.default
    }


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
