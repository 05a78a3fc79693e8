"""Looks a model up, on the Hugging Face Hub or in a local directory: revision, shape, exact size of the weights.

Only headers are read: of each safetensors file the first 100 kB, of the rest config.json. Of data sets, the names of
their files, and a file itself (hub_dataset.py says which). huggingface_hub is imported
here and nowhere else, and its errors end here. A token is taken from where that library finds it (HF_TOKEN, or the file
that `hf auth login` writes) and is in no message.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from huggingface_hub import HfApi, constants
from huggingface_hub.constants import ENDPOINT
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    NotASafetensorsRepoError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    SafetensorsParsingError,
)
from huggingface_hub.hf_api import DatasetInfo, ModelInfo
from huggingface_hub.utils import disable_progress_bars, get_session
from huggingface_hub.utils.logging import set_verbosity_error

from harness.catalog.config_fields import text_config
from harness.catalog.config_json import shape_from_config
from harness.catalog.quantization import SIDE_FILE, quantization_from_config, with_side_file
from harness.catalog.shapes import ModelShape, find_shape
from harness.catalog.shapes import weight_bytes as estimated_weight_bytes
from harness.catalog.text_files import GENERATION, NOTHING_READ, TOKENIZER, TextFiles, read_text_files
from harness.errors import HarnessError, MissingError, UsageError
from harness.input_files import read_json_object
from harness.units import format_bytes

TIMEOUT = 10.0
"""Seconds for one answer of the Hub."""

SizeSource = Literal["safetensors headers", "file sizes", "config.json"]


@dataclass(frozen=True)
class HubModel:
    """One model. repo: its name now. revision: the commit; None for a directory. weight_bytes: of the files that an
    engine loads; None where neither files nor shape tell it.

    shape: None where it is not known, then no_shape says why. size_source: where weight_bytes is from, best first:
    the headers of the safetensors files, the sizes of other weight files, arithmetic on config.json. quantize: the
    checkpoint's own method. dtype: as config.json has it. model_type, architecture: what an engine goes by. licence: as
    its page has it. text_files: tokenizer and sampling. notes: what is odd about it, in sentences.
    """

    repo: str
    revision: str | None
    shape: ModelShape | None
    weight_bytes: int | None
    size_source: SizeSource
    quantize: str | None
    dtype: str | None
    gated: bool = False
    model_type: str = ""
    architecture: str = ""
    licence: str | None = None
    text_files: TextFiles = NOTHING_READ
    no_shape: str | None = None
    notes: tuple[str, ...] = ()


def describe(repo: str, revision: str | None = None, *, endpoint: str | None = None) -> HubModel:
    """Looks a model up. repo: a Hub id, or a directory. endpoint: another Hub than HF_ENDPOINT's.

    Raises UsageError: no such repository or revision, or no shape to be had. MissingError: gated without an accepted
    licence or token, or the Hub cannot be reached.
    """
    if repo.startswith(("/", "~", ".")):
        return _describe_directory(Path(repo).expanduser(), repo)
    disable_progress_bars()
    set_verbosity_error()
    try:
        return _ask(repo, revision, endpoint)
    except Unreachable as error:
        folder = _cached_snapshot(repo, revision)
        if folder is None:
            raise
        found = _describe_directory(folder, repo, whole=False)
        notes = (*found.notes, f"This is what the cache has of it: {error.found}.")
        return replace(found, revision=folder.name, notes=notes)


def _ask(repo: str, revision: str | None, endpoint: str | None) -> HubModel:
    with _translated(repo):
        api = _api(endpoint)
        info = _described(repo, lambda: api.model_info(repo, revision=revision, files_metadata=True, timeout=TIMEOUT))
        # A renamed repository answers under its old name too, with a redirect.
        now = info.id if info.id and info.id.lower() != repo.lower() else repo
        names = frozenset(file.rfilename for file in info.siblings or ())
        _refuse_what_is_no_model(repo, names)
        config = _config(api, now, info.sha)
        if config is not None and SIDE_FILE in names:
            config = with_side_file(config, _config(api, now, info.sha, SIDE_FILE))
        beside = [_beside(api, now, info, name) for name in (TOKENIZER, GENERATION)]
        exact = _header_bytes(api, now, info.sha) or _file_bytes(info)
    licence = getattr(info.card_data, "license", None) if info.card_data else None
    found = _put_together(now, info.sha, config, exact, gated=bool(info.gated))
    text_files = read_text_files(names, *beside)
    context = None if found.shape is None else found.shape.context
    notes = (*found.notes, *_notes(repo, now, names, config), *text_files.notes(context))
    licence = licence if isinstance(licence, str) else None
    return replace(found, licence=licence, text_files=text_files, notes=notes)


def _cached_snapshot(repo: str, revision: str | None) -> Path | None:
    """What the cache has of a model, as far as its config.json is there."""
    folder = _cached(f"models--{repo.replace('/', '--')}", revision)
    return folder if folder is not None and (folder / "config.json").is_file() else None


def _refuse_what_is_no_model(repo: str, names: frozenset[str]) -> None:
    """Raises UsageError for repositories that no entry can serve by their id alone."""
    if "adapter_config.json" in names and "config.json" not in names:
        raise UsageError(
            "holds an adapter (LoRA), not a model",
            where=repo,
            advice="Add its base model; adapter_config.json names it. The adapter is an argument of the engine.",
        )
    files = sorted(name for name in names if name.lower().endswith(".gguf"))
    if files and "config.json" not in names:
        raise UsageError(
            f"holds GGUF files ({len(files)}, such as {files[0]}), which only llama.cpp serves, by name",
            where=repo,
            advice=f"Write the entry with `engine: {{name: llamacpp}}` and `file: {files[0]}`.",
        )


def _notes(repo: str, now: str, names: frozenset[str], config: Mapping[str, Any] | None) -> tuple[str, ...]:
    notes = []
    if now != repo:
        notes.append(f"{repo} is called {now} now.")
    safe = any(name.endswith(".safetensors") for name in names)
    if not safe and any(name.endswith((".bin", ".pt", ".pth")) for name in names):
        notes.append("Its weights are pickle files only, which run code when they are read; TGI converts them first.")
    if config is not None and config.get("auto_map"):
        notes.append("It brings code of its own: engines that do not know it need `trust_remote_code: true`.")
    return tuple(notes)


def resolve_revision(repo: str, revision: str | None = None, *, endpoint: str | None = None) -> str:
    """The commit that a branch, a tag or nothing means now. Raises like `describe`."""
    with _translated(repo):
        api = _api(endpoint)
        info = _described(repo, lambda: api.model_info(repo, revision=revision, timeout=TIMEOUT))
    if info.sha is None:
        raise MissingError(
            "the Hub names no commit of this model", where=repo, advice="Give a revision in models.yaml."
        )
    return info.sha


# What the library lets through of an answer that is JSON of another form than it expects.
_NOT_AS_EXPECTED = (TypeError, KeyError, AttributeError, IndexError, OverflowError, RecursionError)
_Info = TypeVar("_Info", ModelInfo, DatasetInfo)


def _described(repo: str, ask: Callable[[], _Info]) -> _Info:
    """What the library makes of the Hub's answer, whose fields it takes as they come. Raises MissingError for an answer
    that describes nothing.
    """
    try:
        info = ask()
    except _NOT_AS_EXPECTED as error:
        raise _no_description(repo) from error
    files: list[Any] = list(info.siblings or ())
    texts = [info.id, *(each.rfilename for each in files)]
    sizes = [each.size for each in files if each.size is not None]
    if not all(isinstance(each, str) for each in texts) or not isinstance(info.sha, (str, type(None))):
        raise _no_description(repo)
    if not all(isinstance(each, int) and each >= 0 for each in sizes):
        raise _no_description(repo)
    return info


def _no_description(repo: str) -> MissingError:
    advice = "Check HF_ENDPOINT: something else than a Hub may answer there."
    return MissingError("the Hub answered what describes no repository", where=repo, advice=advice)


class Unreachable(MissingError):
    """The Hub cannot be reached, or must not be asked."""


def file_names(repo: str, revision: str | None, *, endpoint: str | None = None) -> tuple[str, list[str]]:
    """The commit of a data set, and the names of its files there.

    Raises like `describe`; Unreachable where the cache is the only way left.
    """
    with _translated(repo, "data set"):
        api = _api(endpoint)
        info = _described(repo, lambda: api.dataset_info(repo, revision=revision, timeout=TIMEOUT))
    if info.sha is None:
        raise MissingError("the Hub names no commit of this data set", where=repo, advice="Name one: REPO@COMMIT.")
    return info.sha, sorted(each.rfilename for each in info.siblings or ())


def download(repo: str, file: str, revision: str | None, *, endpoint: str | None = None) -> tuple[Path, str]:
    """A file of a data set, from the cache where it lies there already, and its commit. Raises like `file_names`.

    The cache notes what commit the revision stood for, and so finds the file again without a network.
    """
    disable_progress_bars()
    set_verbosity_error()
    with _translated(repo, "data set"):
        path = _api(endpoint).hf_hub_download(
            repo, file, repo_type="dataset", revision=revision, etag_timeout=TIMEOUT, cache_dir=_cache()
        )
    return Path(path), Path(path).relative_to(_folder(repo) / "snapshots").parts[0]


def cached_folder(repo: str, revision: str | None) -> Path | None:
    """Where the cache keeps what it has of a data set; named after its commit. None where it has nothing.

    Without a revision that of the main branch, as of the last time that anybody asked, or the only one there is.
    """
    return _cached(f"datasets--{repo.replace('/', '--')}", revision)


def _cached(name: str, revision: str | None) -> Path | None:
    reference, snapshots = _cache() / name / "refs" / (revision or "main"), _cache() / name / "snapshots"
    try:
        commit = reference.read_text(encoding="utf-8").strip() if reference.is_file() else revision
        kept = [snapshots / commit] if commit else list(snapshots.glob("*"))
        return kept[0] if len(kept) == 1 and kept[0].is_dir() else None
    except (OSError, ValueError):
        return None


def _folder(repo: str) -> Path:
    return _cache() / f"datasets--{repo.replace('/', '--')}"


def _cache() -> Path:
    return Path(constants.HF_HUB_CACHE)


def token_is_accepted(token: str, *, endpoint: str | None = None) -> bool:
    """Whether the Hub knows this token. Raises MissingError where the Hub cannot be reached or does not say."""
    address = f"{_endpoint(endpoint) or ENDPOINT}/api/whoami-v2"
    token = token.strip()
    try:
        token.encode("latin-1")
    except UnicodeEncodeError:  # characters that no header can carry
        return False
    try:
        with _translated("token"):
            answer = get_session().get(address, headers={"authorization": f"Bearer {token}"}, timeout=TIMEOUT)
    except ValueError:  # characters that no header can carry
        return False
    if answer.status_code in (401, 403):
        return False
    if answer.status_code != 200:
        raise MissingError(f"the Hub answered {answer.status_code}", where="token", advice="Try again later.")
    return True


def _api(endpoint: str | None) -> HfApi:
    """A token read from a file may end in a line break, which a header must not hold."""
    token = os.environ.get("HF_TOKEN", "").strip()
    chosen = _endpoint(endpoint)
    return HfApi(endpoint=None if chosen is None else _behind_redirects(chosen), token=token or None)


def _endpoint(endpoint: str | None) -> str | None:
    """The Hub that is asked; None for the library's own. A slash at its end would be written twice."""
    chosen = (endpoint or os.environ.get("HF_ENDPOINT") or "").strip().rstrip("/")
    return chosen or None


_MOVED = (301, 302, 303, 307, 308)
_MOST_REDIRECTS = 5


def _behind_redirects(endpoint: str) -> str:
    """Where a mirror sends everything: the library follows that for some of its requests and not for others."""
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in _ON:
        return endpoint
    probe = "/api/whoami-v2"
    for _ in range(_MOST_REDIRECTS):
        answer = get_session().get(f"{endpoint}{probe}", timeout=TIMEOUT, allow_redirects=False)
        location = answer.headers.get("location", "").partition("?")[0]
        if answer.status_code not in _MOVED or not location.startswith("http") or not location.endswith(probe):
            return endpoint
        endpoint = location.removesuffix(probe)
    raise MissingError(
        "redirects in a circle", where=f"HF_ENDPOINT={endpoint}", advice="Name the Hub or the mirror itself."
    )


_ON = ("1", "true", "yes", "on")


def _config(api: HfApi, repo: str, revision: str | None, name: str = "config.json") -> Mapping[str, Any] | None:
    try:
        path = api.hf_hub_download(repo, name, revision=revision, etag_timeout=TIMEOUT)
    except LocalEntryNotFoundError:
        raise
    except EntryNotFoundError:
        return None
    return _read_config(Path(path))


_LARGEST = 16 * 2**20
"""Bytes of a JSON file beside the weights that is still fetched; templates are a few kilobytes."""


def _beside(api: HfApi, repo: str, info: ModelInfo, name: str) -> Mapping[str, Any] | None:
    """A file that serves to tell more; None where it is not there, too large, or no JSON object."""
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
    if name not in sizes or sizes[name] > _LARGEST:
        return None
    try:
        return _config(api, repo, info.sha, name)
    except UsageError:
        return None


def _read_config(path: Path) -> Mapping[str, Any] | None:
    """None where there is no such file. Raises UsageError for one that is no JSON object."""
    if not path.is_file():
        return None
    try:
        return read_json_object(path)
    except UsageError as error:
        raise UsageError(error.found, where=path.name, advice="The repository is damaged.") from error


def _header_bytes(api: HfApi, repo: str, revision: str | None) -> tuple[int, SizeSource] | None:
    """The bytes of all tensors: offsets, not counts, because packed 4-bit weights pass for 32-bit integers."""
    try:
        metadata = api.get_safetensors_metadata(repo, revision=revision)
    except LocalEntryNotFoundError:
        raise
    except (NotASafetensorsRepoError, SafetensorsParsingError, EntryNotFoundError, *_NOT_AS_EXPECTED):
        return None  # no such files, or an index that names others
    spans = [tensor.data_offsets for file in metadata.files_metadata.values() for tensor in file.tensors.values()]
    if not all(isinstance(edge, int) for span in spans for edge in span):
        return None
    return (sum(end - start for start, end in spans), "safetensors headers") if spans else None


def _file_bytes(info: ModelInfo) -> tuple[int, SizeSource] | None:
    """The sizes of PyTorch's weight files; their few headers hardly count."""
    sizes = [
        file.size
        for file in info.siblings or ()
        if file.rfilename.startswith("pytorch_model") and file.size is not None
    ]
    return (sum(sizes), "file sizes") if sizes else None


def _describe_directory(folder: Path, repo: str, *, whole: bool = True) -> HubModel:
    """whole: what is not there is missing; a cache has only what somebody asked for."""
    if not folder.is_dir():
        raise UsageError("no such directory", where=repo, advice="Name a directory with config.json and weights.")
    config = _read_config(folder / "config.json")
    if config is not None:
        config = with_side_file(config, _read_config(folder / SIDE_FILE))
    headers = [_local_header_bytes(path) for path in sorted(folder.glob("*.safetensors")) if _is_loaded(path)]
    exact: tuple[int, SizeSource] | None = (sum(headers), "safetensors headers") if headers else None
    if exact is None:
        sizes = [path.stat().st_size for path in folder.glob("pytorch_model*.bin")]
        exact = (sum(sizes), "file sizes") if sizes else None
    found = _put_together(repo, None, config, exact)
    names = {path.name for path in folder.iterdir()}
    text_files = read_text_files(names, *(_read_beside(folder / name) for name in (TOKENIZER, GENERATION)))
    context = None if found.shape is None else found.shape.context
    more = text_files.notes(context) if whole else ()
    return replace(found, text_files=text_files, notes=(*found.notes, *more))


def _read_beside(path: Path) -> Mapping[str, Any] | None:
    try:
        return _read_config(path)
    except UsageError:
        return None


def _is_loaded(path: Path) -> bool:
    """Some repositories hold the weights twice, the second time in Mistral's own layout."""
    return not path.name.startswith("consolidated") or not any(path.parent.glob("model*.safetensors"))


def _local_header_bytes(path: Path) -> int:
    """Of one safetensors file: eight bytes with the header's length, little-endian, and the header, JSON."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(length, 100_000_000)))
        spans = [tensor["data_offsets"] for name, tensor in header.items() if name != "__metadata__"]
        return sum(int(end) - int(start) for start, end in spans)
    except (OSError, ValueError, *_NOT_AS_EXPECTED) as error:
        raise UsageError("no safetensors file", where=str(path), advice="Download it again.") from error


def _put_together(
    repo: str,
    revision: str | None,
    config: Mapping[str, Any] | None,
    exact: tuple[int, SizeSource] | None,
    *,
    gated: bool = False,
) -> HubModel:
    shape, no_shape = _shape(repo, config)
    if shape is None and config is None:
        raise UsageError(
            "has no config.json, and harness does not know its shape",
            where=repo,
            advice="Give the fields under `shape:` in models.yaml.",
        )
    config = config or {}
    quantize = quantization_from_config(config)
    text = text_config(config)
    dtype = next((word for key in ("torch_dtype", "dtype") if isinstance(word := text.get(key), str)), None)
    classes = config.get("architectures")
    size, source = exact or (None if shape is None else _estimate(shape, quantize, dtype), "config.json")
    notes: tuple[str, ...] = ()
    if exact is not None and shape is not None and source == "safetensors headers":
        shape, notes = _compared(shape, exact[0], _estimate(shape, quantize, dtype), config)
    return HubModel(
        repo,
        revision,
        shape,
        size,
        source,
        quantize,
        dtype,
        gated,
        model_type=str(config.get("model_type", "")),
        architecture=str(classes[0]) if isinstance(classes, list) and classes else "",
        no_shape=no_shape,
        notes=notes,
    )


def _shape(repo: str, config: Mapping[str, Any] | None) -> tuple[ModelShape | None, str | None]:
    """From the model's own file, else from the table; and why there is none."""
    if config is None:
        return find_shape(repo), None
    try:
        return shape_from_config(config, repo), None
    except UsageError as error:
        return None, error.found


_TOWERS = ("vision_config", "audio_config", "visual")


def _compared(
    shape: ModelShape, held: int, computed: int, config: Mapping[str, Any]
) -> tuple[ModelShape, tuple[str, ...]]:
    """The shape with what only the files know of, and what is said where both differ by more than a tenth."""
    more = held - computed
    if more > 0 and any(config.get(key) for key in _TOWERS):
        shape = replace(shape, vision_parameters=more // 2)
    elif abs(more) > 0.1 * computed and held > 2**20:
        files, ours = format_bytes(held), format_bytes(computed)
        return shape, (f"Its files hold {files} of weights, its config.json amounts to {ours}; the files count.",)
    return shape, ()


def _estimate(shape: ModelShape, quantize: str | None, dtype: Any) -> int:
    try:
        return estimated_weight_bytes(shape, quantize, dtype if isinstance(dtype, str) else None)
    except HarnessError:  # a method or type that the arithmetic does not know: as 16-bit weights
        return estimated_weight_bytes(shape)


@contextmanager
def _translated(repo: str, kind: str = "model") -> Iterator[None]:
    """Errors of the library as errors of harness; the order matters, because they inherit from each other."""
    try:
        yield
    except GatedRepoError as error:
        raise MissingError(
            "is gated, and this machine has no token that its licence was accepted for",
            where=repo,
            advice=f"Accept it at https://huggingface.co/{_path(repo, kind)} and set HF_TOKEN.",
        ) from error
    except RevisionNotFoundError as error:
        found = "; `harness models update` says which commit the Hub has now" if kind == "model" else ""
        advice = f"Name a commit, a tag or a branch{found}."
        raise UsageError("has no such revision", where=repo, advice=advice) from error
    except LocalEntryNotFoundError as error:
        raise _unreachable(repo, kind) from error
    except (RepositoryNotFoundError, EntryNotFoundError) as error:
        advice = f"Check the id; for a private {kind} set HF_TOKEN."
        raise UsageError("is not on the Hub, or is private", where=repo, advice=advice) from error
    except HFValidationError as error:
        raise UsageError("is not a Hub id", where=repo, advice="Write it as ORGANISATION/NAME.") from error
    except HfHubHTTPError as error:
        raise _refused(repo, error) from error
    except ValueError as error:  # of the JSON parsers, which some of these errors also are
        advice = "Check HF_ENDPOINT: a proxy or a page to log in may answer instead."
        raise MissingError("the Hub answered what is not valid JSON", where=repo, advice=advice) from error
    except OSError as error:
        slow = "timed out" in str(error).lower() or "timeout" in type(error).__name__.lower()
        raise _unreachable(repo, kind, slow=slow) from error


def _refused(repo: str, error: HfHubHTTPError) -> MissingError:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        advice = "HF_TOKEN is not valid for it; make a new one at https://huggingface.co/settings/tokens."
        return MissingError(f"the Hub refused the request ({status})", where=repo, advice=advice)
    if status == 429:
        wait = getattr(error, "response", None).headers.get("retry-after", "")  # type: ignore[union-attr]
        when = f"in {wait} s" if wait.isdigit() else "later"
        advice = f"Try again {when}; with HF_TOKEN set the limit is higher."
        return MissingError("the Hub limits how often it is asked (429)", where=repo, advice=advice)
    answered = f"the Hub answered {status}" if status else "the Hub did not answer properly"
    return MissingError(answered, where=repo, advice="Try again later.")


def _path(repo: str, kind: str) -> str:
    return repo if kind == "model" else f"datasets/{repo}"


def _unreachable(repo: str, kind: str, *, slow: bool = False) -> Unreachable:
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in _ON:
        return Unreachable("HF_HUB_OFFLINE is set, and the Hub is needed", where=repo, advice="Unset it.")
    instead = "a directory that holds the model" if kind == "model" else "a file that holds it"
    advice = f"Check the network and HF_ENDPOINT, or name {instead}."
    found = f"the Hub did not answer within {TIMEOUT:g} s" if slow else "the Hub cannot be reached"
    return Unreachable(found, where=repo, advice=advice)
