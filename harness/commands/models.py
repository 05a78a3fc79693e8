"""`harness models`: show the catalogue, say whether its entries fit their GPUs, and add entries to it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.catalog.gpus import Gpu, find_gpu, gpus
from harness.catalog.limits import Limits
from harness.catalog.models import Model, add_entry
from harness.catalog.shapes import ModelShape, find_shape, kv_bytes_per_token, parameters, shape_from_config
from harness.catalog.shapes import weight_bytes as estimated_weight_bytes
from harness.engines import load_catalogue
from harness.errors import UsageError
from harness.simulator import memory
from harness.simulator.memory import Budget, NotEnoughMemory, ServingPlan
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
    """Whether one model fits one kind of GPU. outcome: the sum, None where it is not the memory that decides.

    remedies: what would fit instead, each tried by the same arithmetic.
    """

    name: str
    gpu: Gpu
    gpus: int
    reason: str
    fits: bool
    outcome: Budget | NotEnoughMemory | None
    remedies: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        budget = self.outcome if isinstance(self.outcome, Budget) else None
        return {
            "name": self.name,
            "gpu": self.gpu.name,
            "gpus": self.gpus,
            "fits": self.fits,
            "reason": self.reason,
            "max_batch_total_tokens": budget.tokens if budget else None,
            "max_total_tokens": budget.max_total_tokens if budget else None,
            "max_batch_prefill_tokens": budget.max_batch_prefill_tokens if budget else None,
            "gpu_memory_bytes": self.gpu.visible_bytes,
            "memory_bytes": {part.name: part.bytes for part in self.outcome.parts} if self.outcome else {},
            "missing_bytes": self.outcome.missing_bytes if isinstance(self.outcome, NotEnoughMemory) else 0,
            "remedies": list(self.remedies),
        }


def check_models(names: Sequence[str], *, gpu: str | None = None, catalogue: str | Path | None = None) -> list[Fit]:
    """Whether these entries (all, where none is named) fit their GPUs, or the given one, by TGI's memory arithmetic.

    Raises UsageError: wrong catalogue, unknown name, no GPU named and none here. MissingError: a shape that only the
    Hub knows, and the Hub cannot be asked.
    """
    known = load_catalogue(catalogue)
    models = [known.find(name) for name in names] or list(known.models.values())
    return [check(model, _gpu_of(model, gpu)) for model in models]


def check_text(verdicts: Sequence[Fit]) -> str:
    """One line per model; for one that does not fit, or one alone, the sum with its parts."""
    lines = []
    for each in verdicts:
        lines.append(f"{'fits' if each.fits else 'DOES NOT FIT':<12}  {each.name}: {each.reason}")
        if each.outcome is not None and (len(verdicts) == 1 or not each.fits):
            lines += [f"    {line}" for line in memory.describe(each.outcome).splitlines()]
        lines += [f"    would fit: {remedy}" for remedy in each.remedies]
    return "\n".join(lines)


def check(model: Model, gpu: Gpu, *, used_bytes: int = 0) -> Fit:
    """One model on one kind of GPU. used_bytes: of each of these GPUs, by other processes."""
    shape = shape_of(model)
    refusal = _refusal(model, gpu, shape)
    if refusal is not None:
        return Fit(model.name, gpu, model.gpus, refusal, False, None, _remedies(model, gpu, shape, used_bytes))
    try:
        outcome = _start(model, gpu, shape, used_bytes)
    except UsageError as error:  # shards that do not divide the heads
        return Fit(model.name, gpu, model.gpus, error.found, False, None, _remedies(model, gpu, shape, used_bytes))
    contradiction = _contradiction(model, gpu, shape, outcome) if isinstance(outcome, Budget) else None
    fits = isinstance(outcome, Budget) and contradiction is None
    reason = contradiction or _reason(model, gpu, outcome)
    return Fit(
        model.name, gpu, model.gpus, reason, fits, outcome, () if fits else _remedies(model, gpu, shape, used_bytes)
    )


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
    return estimated_weight_bytes(shape, model.quantize, model.dtype)


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


def serving_plan(model: Model, gpu: Gpu, shape: ModelShape) -> ServingPlan:
    """The entry as the memory arithmetic takes it, with the variables of `env` that matter to it."""
    limits = model.limits
    env = model.env
    return ServingPlan(
        shape=shape,
        gpu=gpu,
        shards=model.gpus,
        version=model.engine.version,
        dtype=model.dtype,
        quantize=model.quantize,
        kv_cache_dtype=model.kv_cache_dtype,
        cuda_memory_fraction=_number(env.get("CUDA_MEMORY_FRACTION")) or 1.0,
        wiggle_room=_number(env.get("TGI_WIGGLE_ROOM")),
        attention=env.get("ATTENTION"),
        prefix_caching=_switch(env.get("PREFIX_CACHING") or env.get("USE_PREFIX_CACHING")),
        prefill_chunking=_switch(env.get("PREFILL_CHUNKING")),
        max_input_tokens=limits.max_input_tokens,
        max_total_tokens=limits.max_total_tokens,
        max_batch_prefill_tokens=limits.max_batch_prefill_tokens,
        max_batch_total_tokens=limits.max_batch_total_tokens,
        max_batch_size=limits.max_batch_size,
        cuda_graphs=_sizes(env.get("CUDA_GRAPHS")),
        prefill_logprobs=(env.get("ENABLE_PREFILL_LOGPROBS") or "").lower() == "true",
    )


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def _switch(text: str | None) -> bool | None:
    return None if text is None else text.lower() in ("1", "true")


def _sizes(text: str | None) -> tuple[int, ...] | None:
    if text is None or not re.fullmatch(r"\d+(,\d+)*", text):
        return None
    return tuple(int(part) for part in text.split(",") if int(part))


def _start(model: Model, gpu: Gpu, shape: ModelShape, used_bytes: int = 0) -> Budget | NotEnoughMemory:
    """The sum. Where the exact size of the weights is known and larger than reckoned, the difference counts too."""
    more = 0
    if model.weight_bytes is not None:
        reckoned = estimated_weight_bytes(shape, model.quantize, model.dtype)
        more = max(0, model.weight_bytes - reckoned) // model.gpus
    return memory.budget(serving_plan(model, gpu, shape), World(extra_at_load_bytes=more, used_by_others=used_bytes))


def _refusal(model: Model, gpu: Gpu, shape: ModelShape) -> str | None:
    """What the card cannot do at all. Compute capability 0.0 stands for another maker's card, which is not judged."""
    capability = gpu.compute_capability
    if capability == (0, 0):
        return None
    if model.dtype == "bfloat16" and capability < (8, 0):
        return f"{gpu.name} has no bfloat16, which came with compute capability 8.0; set dtype: float16"
    if model.quantize in ("fp8", "marlin", "exl2") and capability < (8, 0):
        return f"{gpu.name} is too old for quantize: {model.quantize}, which needs compute capability 8.0"
    attention = memory.resolve(serving_plan(model, gpu, shape)).attention
    if model.kv_cache_dtype is not None and attention == "flashdecoding":
        # server/text_generation_server/layers/attention/kv_cache.py:68-84
        return f"its attention is flashdecoding, for which there is no KV cache of {model.kv_cache_dtype}"
    if model.quantize == "exl2" and model.gpus > 1:
        return "quantize: exl2 works on one GPU only"  # launcher/src/main.rs:2091-2096
    return None


def _contradiction(model: Model, gpu: Gpu, shape: ModelShape, start: Budget) -> str | None:
    """Limits that the router refuses once it knows the budget (backends/v3/src/main.rs:180-196, lib.rs:98-107)."""
    resolved = memory.resolve(serving_plan(model, gpu, shape))
    tokens = format_count(start.tokens)
    if start.max_total_tokens > start.tokens:
        return f"max_total_tokens {format_count(start.max_total_tokens)} exceeds the KV cache of {tokens} tokens"
    if start.max_batch_prefill_tokens > start.tokens:
        prefill = format_count(start.max_batch_prefill_tokens)
        return f"max_batch_prefill_tokens {prefill} exceeds the KV cache of {tokens} tokens; set it lower"
    if not resolved.chunking and start.max_batch_prefill_tokens < start.max_input_tokens:
        return (
            f"max_batch_prefill_tokens {format_count(start.max_batch_prefill_tokens)} is below max_input_tokens "
            f"{format_count(start.max_input_tokens)}, and this model's prompts are not read in chunks"
        )
    return None


def _reason(model: Model, gpu: Gpu, outcome: Budget | NotEnoughMemory) -> str:
    cards = _cards(gpu, model.gpus)
    weights = sum(part.bytes for part in outcome.parts if part.name in WEIGHTS)
    each = " each" if model.gpus > 1 else ""
    if isinstance(outcome, NotEnoughMemory):
        doing = "loading the weights" if outcome.stage == "load" else "the warm-up"
        return (
            f"on {cards} ({format_bytes(outcome.total_bytes)}{each}) {doing} lacks "
            f"{format_bytes(outcome.missing_bytes)}; the weights take {format_bytes(weights)}{each}"
        )
    chats = outcome.usable_tokens // _A_CHAT
    longest = format_count(outcome.max_total_tokens)
    return (
        f"on {cards} beside {format_bytes(weights)} of weights{each}: a KV cache of {format_count(outcome.tokens)} "
        f"tokens, one chat of up to {longest} or {format_count(chats)} of {format_count(_A_CHAT)}"
    )


WEIGHTS = ("weights of the layers", "embedding", "output head")


def _cards(gpu: Gpu, count: int) -> str:
    return gpu.name if count == 1 else f"{count} x {gpu.name}"


def _remedies(model: Model, gpu: Gpu, shape: ModelShape, used_bytes: int) -> tuple[str, ...]:
    """The nearest settings that fit, one of each kind, from the one that changes least."""
    found: list[str] = []
    for kind in _alternatives(model, gpu):
        fitting = (
            text for text, changed, card in kind if _is_fine(changed, card, shape, used_bytes if card is gpu else 0)
        )
        found += [text for text in (next(fitting, None),) if text is not None]
    return tuple(found[:_MOST_REMEDIES])


Alternative = tuple[str, Model, Gpu]


def _alternatives(model: Model, gpu: Gpu) -> Iterator[Iterator[Alternative]]:
    """Kinds of changes, each from small to large."""
    yield iter(_other_settings(model, gpu))
    yield (
        (f"quantize: {method}", dataclasses.replace(model, quantize=method, dtype=None), gpu)
        for method in ("fp8", "bitsandbytes-nf4")
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


def _is_fine(model: Model, gpu: Gpu, shape: ModelShape, used_bytes: int) -> bool:
    if _refusal(model, gpu, shape) is not None:
        return False
    try:
        outcome = _start(model, gpu, shape, used_bytes)
        return isinstance(outcome, Budget) and _contradiction(model, gpu, shape, outcome) is None
    except UsageError:
        return False


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
