"""models.yaml: what is read, and that every mistake is named with its line, its key and what was expected."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.catalog import models
from harness.catalog.document import CatalogueError
from harness.catalog.limits import Limits
from harness.catalog.models import Catalogue, EngineChoice
from harness.catalog.slo import parse_slo
from harness.engines import accepted, load_catalogue
from harness.errors import UsageError

ROOT = Path(__file__).resolve().parents[2]


def parse_catalogue(text: str, shown: str = "models.yaml") -> Catalogue:
    """Held against the engines that there are."""
    return models.parse_catalogue(text, shown, accepted())


def mistakes(text: str) -> list[str]:
    with pytest.raises(CatalogueError) as caught:
        parse_catalogue(text, "models.yaml")
    assert caught.value.exit_code == 2
    return str(caught.value).splitlines()


def entry(*lines: str) -> str:
    """A catalogue with one entry `m`; the given lines begin at line 4 of the file."""
    return "\n".join(["models:", "  m:", "    repo: a/b", *(f"    {line}" for line in lines), ""])


FULL = """
defaults:
  engine: {name: tgi, version: 3.10}
  slo: {ttft_p95: 1s, itl_p95: 60ms}
  dtype: float16
  limits: {max_concurrent_requests: 64, max_input_tokens: 10}
x-mine: &small {answer_tokens: 64, replicas: 2}
models:
  one:
    <<: *small
    repo: Qwen/Qwen2.5-7B-Instruct
    revision: 0123456
    gpu: nvidia l4
    gpus: 2
    quantize: awq
    kv_cache_dtype: fp8
    engine: {image: "ghcr.io/x/tgi:3.3.7", command: [launcher, --json-output]}
    limits: {max_input_length: 8_192, max_total_tokens: 10240, max_concurrent_requests: }
    slo: {ttft_p95: 2}
    env: {CUDA_GRAPHS: 0, LOG_LEVEL: no}
    price_per_gpu_hour: 1
    context_length: 32768
    replicas: 3
    start_timeout: 1h30m
    port: 8080
    trust_remote_code: true
  two: {repo: /data/model}
"""


def test_every_key_is_read_as_it_looks() -> None:
    """Text stays as written, numbers count, durations are seconds, an older name is the newer limit."""
    model = parse_catalogue(FULL).models["one"]
    assert (model.repo, model.revision, model.gpu, model.gpus) == ("Qwen/Qwen2.5-7B-Instruct", "0123456", "L4", 2)
    assert (model.quantize, model.dtype, model.kv_cache_dtype) == ("awq", None, "fp8_e4m3fn")
    assert model.engine == EngineChoice("tgi", "3.10", "ghcr.io/x/tgi:3.3.7", ("launcher", "--json-output"))
    assert model.limits == Limits(max_input_tokens=8192, max_total_tokens=10240)
    assert model.slo == parse_slo("ttft_p95=2s,itl_p95=60ms")
    assert model.env == {"CUDA_GRAPHS": "0", "LOG_LEVEL": "no"}
    assert (model.price_per_gpu_hour, model.context_length, model.answer_tokens) == (1.0, 32768, 64)
    assert (model.replicas, model.start_timeout, model.port, model.trust_remote_code) == (3, 5400.0, 8080, True)


def test_defaults_hold_where_an_entry_says_nothing() -> None:
    """An entry without a key has the default; without a default, the engine decides."""
    model = parse_catalogue(FULL).models["two"]
    assert (model.dtype, model.quantize, model.limits.max_concurrent_requests) == ("float16", None, 64)
    assert (model.gpu, model.start_timeout, model.is_local) == (None, 1200.0, True)


# Each case: lines of an entry, and what the message says behind `models.yaml:LINE: models/m/`.
CASES = [
    ("slo: {ttft_p95: fast}", "slo/ttft_p95: expected a duration such as 500ms or 1s, found 'fast'"),
    ("slo: {ttft_p95: 0}", "slo/ttft_p95: expected a duration above zero such as 500ms or 1s, found 0"),
    ("slo: {ttft_p95: -1}", "slo/ttft_p95: expected a duration such as 500ms or 1s, found -1"),
    (
        "slo: {ttft_p33: 1s}",
        "slo/ttft_p33: expected a metric and a statistic such as ttft_p95, itl_p99 or e2e_p50, found 'ttft_p33'",
    ),
    ("slo: [1]", "slo: expected a mapping such as {ttft_p95: 1s}, found a list"),
    ("start_timeout: [20m]", "start_timeout: expected a duration such as 20m, found a list"),
    ("gpus: two", "gpus: expected a whole number of GPUs, found 'two'"),
    ("gpus: 1.5", "gpus: expected a whole number of GPUs, found 1.5"),
    ("gpus: true", "gpus: expected a whole number of GPUs, found true"),
    ("gpus: 0", "gpus: expected a whole number of GPUs from 1 to 1024, found 0"),
    ('gpus: "2"', "gpus: expected a whole number of GPUs, found '2' in quotes"),
    ("port: 70000", "port: expected a whole number of a port from 1 to 65535, found 70000"),
    ("listen: everywhere", "listen: expected an IPv4 address of this host such as 127.0.0.1, found 'everywhere'"),
    ("gpu: L5", "gpu: expected a GPU of the data sheets, found 'L5'. Did you mean L4"),
    ("dtype: bf16", "dtype: expected one of bfloat16, float16, found 'bf16'; did you mean bfloat16?"),
    ("quantize: aqw", "quantize: expected one of awq, bitsandbytes, "),
    ("kv_cache_dtype: int8", "kv_cache_dtype: expected one of fp8, fp8_e4m3fn, fp8_e5m2, found 'int8'"),
    ("trust_remote_code: yes", "trust_remote_code: expected true or false, found 'yes'"),
    (
        "price_per_gpu_hour: 0.8 USD",
        "price_per_gpu_hour: expected US dollars per GPU-hour such as 0.80, found '0.8 USD'",
    ),
    ("price_per_gpu_hour: .inf", "price_per_gpu_hour: expected US dollars per GPU-hour such as 0.80, found .inf"),
    ("revision: [a]", "revision: expected a commit, tag or branch of the Hub, found a list"),
    ('revision: ""', "revision: expected a commit, tag or branch of the Hub, found ''"),
    (
        "limits: 4096",
        "limits: expected a mapping of max_input_tokens, max_input_length, max_total_tokens, ..., found 4096",
    ),
    ("limits: {max_tokens: 1}", "limits/max_tokens: unknown key; did you mean max_total_tokens?"),
    ("max_total_tokens: 1", "max_total_tokens: unknown key; did you mean limits/max_total_tokens?"),
    ("quantise: awq", "quantise: unknown key; did you mean quantize?"),
    ("model_id: a/b", "model_id: unknown key; did you mean repo?"),
    ("zzz: 1", "zzz: unknown key; known: repo, revision, "),
    ("engine: {name: TGI}", "engine/name: expected an engine's name such as tgi, found 'TGI'"),
    ("engine: {version: [3]}", "engine/version: expected a version such as 3.3.7, found a list"),
    ("engine: {command: []}", "engine/command: expected a program, found an empty list"),
    ("engine: {variant: tpu}", "engine/variant: expected one of cuda, rocm, "),
    (
        "env: {HF_TOKEN: hf_x}",
        "env/HF_TOKEN: a secret does not belong in this file; set it in harness's own environment",
    ),
    ("env: {A-B: 1}", "env/A-B: expected a variable's name of letters, digits and '_'"),
    ("env: {A: [1]}", "env/A: expected one value, found a list"),
    ("env: {NUM_SHARD: 2, X: 1}\n    gpus: 2", "env/NUM_SHARD: expected once, found also as gpus in line 5"),
    ("gpu: L4\n    gpu: T4", "gpu: given twice; the first time in line 4"),
    ("gpu: !card L4", "gpu: the YAML tag !card means nothing here"),
    (
        "limits: {max_input_tokens: 4096, max_input_length: 4096}",
        "limits/max_input_length: expected one of max_input_tokens and max_input_length, found both",
    ),
    (
        "limits: {max_input_tokens: 4096, max_total_tokens: 4096}",
        "limits/max_input_tokens: expected less than max_total_tokens (4096), found 4096",
    ),
    (
        "limits: {max_total_tokens: 4097, max_batch_total_tokens: 4096}",
        "limits/max_total_tokens: expected at most max_batch_total_tokens (4096), found 4097",
    ),
    (
        "limits: {max_batch_prefill_tokens: 2, max_batch_total_tokens: 1}",
        "limits/max_batch_prefill_tokens: expected at most max_batch_total_tokens (1), found 2",
    ),
    (
        "context_length: 8192\n    limits: {max_total_tokens: 8193}",
        "limits/max_total_tokens: expected at most context_length (8192), found 8193",
    ),
    (
        "answer_tokens: 512\n    limits: {max_total_tokens: 512}",
        "answer_tokens: expected less than max_total_tokens (512), found 512",
    ),
    ("dtype: float16\n    quantize: awq", "quantize: expected either dtype or quantize, found both (dtype in line 4)"),
    ("shape: {layers: 2}", "shape: expected also model_type, hidden, "),
    ("shape: {layers: x}", "shape/layers: expected a whole number of layers, found 'x'"),
]


@pytest.mark.parametrize(("line", "message"), CASES)
def test_each_mistake_says_where_and_what_was_expected(line: str, message: str) -> None:
    """One mistake, one line, at the line of the key."""
    found = mistakes(entry(line))
    assert len(found) == 1
    place, _, text = found[0].partition(": models/m/")
    assert text.startswith(message)
    number = int(place.removeprefix("models.yaml:"))
    written = entry(line).splitlines()[number - 1]
    assert message.partition(":")[0].rpartition("/")[2].partition(" ")[0] in written or "shape" in message


def test_valid_values_that_look_unusual_are_accepted() -> None:
    """Bitsandbytes goes with a dtype; limits at their bounds; a relative directory; a Hub id without organisation."""
    text = entry(
        "dtype: float16", "quantize: bitsandbytes-nf4", "limits: {max_total_tokens: 8, max_batch_total_tokens: 8}"
    )
    assert parse_catalogue(text).models["m"].quantize == "bitsandbytes-nf4"
    for repo in ("./weights", "~/weights", "gpt2", "01-ai/Yi-6B"):
        assert parse_catalogue(f"models: {{m: {{repo: {repo}}}}}").models["m"].repo == repo


@pytest.mark.parametrize("repo", ["a/b/c", "a b", "weights/", "../", "https://huggingface.co/a/b", "a--b/c", "-a/b"])
def test_a_repo_is_a_hub_id_or_a_directory(repo: str) -> None:
    """What is neither is refused; `../` is a directory."""
    text = f"models: {{m: {{repo: '{repo}'}}}}"
    if repo == "../":
        assert parse_catalogue(text).models["m"].is_local
    else:
        assert mistakes(text)[0].startswith("models.yaml:1: models/m/repo: expected a Hub id such as ")


@pytest.mark.parametrize("name", ["Qwen", "a b", "-a", "a-", "a/b", "ä", "a" * 64])
def test_a_name_must_do_as_a_service_a_host_and_a_folder(name: str) -> None:
    """The message says why, and offers the lower-case form where that is all."""
    (found,) = mistakes(f"models: {{'{name}': {{repo: a/b}}}}")
    assert "because the name becomes a Compose service, a host name and part of a folder's name" in found
    assert found.endswith("; qwen would do") == (name == "Qwen")


def test_all_mistakes_are_reported_at_once_in_the_order_of_the_file() -> None:
    """Nothing stops at the first; a mistake in the defaults is told once, however many entries have it."""
    text = """
defaults: {gpus: many, limits: {max_input_tokens: 9, max_total_tokens: 8}}
models:
  a: {gpu: L9}
  b: {repo: a/b, gpus: none}
  c:
  c: {repo: x/y}
extras: 1
"""
    assert [line.partition(": expected")[0].partition("; known")[0] for line in mistakes(text)] == [
        "models.yaml:2: defaults/gpus",
        "models.yaml:2: defaults/limits/max_input_tokens",
        "models.yaml:4: models/a/gpu",
        "models.yaml:4: models/a/repo",
        "models.yaml:5: models/b/gpus",
        "models.yaml:6: models/c",
        "models.yaml:7: models/c: given twice; the first time in line 6",
        "models.yaml:8: extras: unknown key",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "models.yaml: holds nothing; expected `models:` with at least one entry"),
        ("# nothing\n", "models.yaml: holds nothing; expected `models:` with at least one entry"),
        ("models:\n", "models.yaml:1: models: expected at least one entry, found nothing"),
        ("models: {}\n", "models.yaml:1: models: expected at least one entry, found an empty mapping"),
        ("models: [a]\n", "models.yaml:1: models: expected at least one entry, found a list"),
        ("defaults: {}\n", "models.yaml: models: expected at least one entry, found no such key"),
        ("- a\n", "models.yaml:1: expected the keys defaults and models, found a list"),
        ("models:\n  a: {repo: a/b\n  b: 1\n", "models.yaml:3: column 4: not YAML: "),
        ("models:\n\ta: 1\n", "models.yaml:2: column 1: not YAML: "),
        ("models: {a: {repo: a/b}}\n---\nmodels: 1\n", "models.yaml:3: a second YAML document (`---`); expected one"),
        ("models: &x\n  a: *x\n", "models.yaml:2: models/a: an alias of the mapping that it is in"),
        ("models: {a: *x}\n", "models.yaml:1: column 13: not YAML: "),
        ("models: {[a]: {repo: a/b}}\n", "models.yaml:1: models: expected a name as key, found a list or a mapping"),
    ],
)
def test_a_file_that_is_no_catalogue_is_told_in_one_line(text: str, message: str) -> None:
    """Empty, not a mapping, not YAML: the first line says which, with line and column."""
    assert mistakes(text)[0].startswith(message)


def test_aliases_that_multiply_end_in_one_line() -> None:
    """Nine times nine times nine: a file of a few hundred bytes must not take minutes."""
    bomb = ["x0: &x0 [a, b]"] + [f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 9)}]" for n in range(1, 9)]
    assert "more than 100,000 values with its aliases written out" in mistakes("\n".join(bomb))[0]


def test_unreadable_files_are_usage_errors(tmp_path: Path) -> None:
    """Missing, a folder, or not UTF-8: exit 2 and the file's name."""
    (tmp_path / "latin.yaml").write_bytes("models:\n  ä: 1\n".encode("latin-1"))
    for name, message in (
        ("none.yaml", "no such file"),
        ("", "cannot be read: Is a directory"),
        ("latin.yaml", "not UTF-8: byte 0xe4 in line 2"),
    ):
        with pytest.raises(UsageError, match=message) as caught:
            load_catalogue(tmp_path / name)
        assert caught.value.exit_code == 2
        assert str(tmp_path) in str(caught.value)


def test_a_byte_order_mark_and_crlf_are_no_mistakes(tmp_path: Path) -> None:
    """Files saved by Windows editors are read alike."""
    (tmp_path / "m.yaml").write_bytes(b"\xef\xbb\xbfmodels:\r\n  a:\r\n    repo: a/b\r\n")
    assert list(load_catalogue(tmp_path / "m.yaml").models) == ["a"]


def test_the_working_directory_wins_over_the_packaged_catalogue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a models.yaml in the working directory the one that ships with harness is read."""
    monkeypatch.chdir(tmp_path)
    assert load_catalogue().first().repo == "Qwen/Qwen2.5-0.5B-Instruct"
    (tmp_path / "models.yaml").write_text("models: {mine: {repo: a/b}}")
    assert list(load_catalogue().models) == ["mine"]


CATALOGUE = parse_catalogue(
    "models:\n"
    "  llama-8b: {repo: meta-llama/Llama-3.1-8B}\n"
    "  llama-8b-awq: {repo: x/Llama-AWQ}\n"
    "  twin: {repo: x/Llama-AWQ}\n"
)


def test_a_model_is_found_by_its_name_or_by_its_hub_id() -> None:
    """Case does not matter."""
    assert CATALOGUE.find("llama-8b").name == "llama-8b"
    assert CATALOGUE.find("Llama-8B").name == "llama-8b"
    assert CATALOGUE.find("meta-llama/llama-3.1-8b").name == "llama-8b"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("llama8b", "unknown model 'llama8b'. Did you mean llama-8b, llama-8b-awq? `harness models list` shows all."),
        ("zzz", "unknown model 'zzz'. Known: llama-8b, llama-8b-awq, twin."),
        ("x/Llama-AWQ", "'x/Llama-AWQ' is served by several entries. Name one of llama-8b-awq, twin."),
    ],
)
def test_an_unknown_model_is_answered_with_the_nearest_names(name: str, message: str) -> None:
    """Exit 2, and what could have been meant."""
    with pytest.raises(UsageError) as caught:
        CATALOGUE.find(name)
    assert str(caught.value) == f"models.yaml: {message}"


@pytest.fixture(scope="module")
def shipped() -> Catalogue:
    return load_catalogue(ROOT / "models.yaml")


def test_the_shipped_catalogue_covers_what_people_serve(shipped: Catalogue) -> None:
    """At least ten models of several families from 0.5B to 70B; the first is the one for `demo`."""
    assert len(shipped.models) >= 10
    assert shipped.first().repo == "Qwen/Qwen2.5-0.5B-Instruct"
    assert shipped.first().gpu == "L4"
    for model in shipped.models.values():
        assert model.gpu, model.name
        assert model.context_length, model.name
        assert model.slo.bounds, model.name
        assert model.price_per_gpu_hour, model.name
        assert model.price_source, model.name


def test_the_first_entry_documents_every_key(shipped: Catalogue) -> None:
    """A key that the schema knows is shown, commented out or not, in the first entry."""
    from harness.catalog.schema import KEYS

    text = (ROOT / "models.yaml").read_text(encoding="utf-8")
    first = text.partition("\n\n  smollm2")[0].partition("models:\n")[2]
    for key, inner in KEYS.items():
        assert f"{key}:" in first, key
        if isinstance(inner, dict) and key != "shape":
            for name in inner:
                assert name in first, f"{key}/{name}"


@pytest.mark.parametrize("depth", [1, 30, 60, 500])
def test_mistakes_are_shown_in_whole_lines_however_long_the_path(tmp_path: Path, depth: int) -> None:
    """What has no room on a screen is counted, and no line is cut in the middle."""
    path = tmp_path.joinpath(*["folder"] * depth) / "models.yaml"
    path.parent.mkdir(parents=True)
    keys = "".join(f"    wrong_{number}: 1\n" for number in range(40))
    path.write_text(f"models:\n  one:\n    repo: a/b\n{keys}", encoding="utf-8")
    with pytest.raises(CatalogueError) as refused:
        load_catalogue(path)
    *lines, last = str(refused.value).split("\n")
    shown = str(path) if len(str(path)) <= 400 else f"…{str(path)[-400:]}"
    assert all(line.startswith(f"{shown}:") and "unknown key" in line for line in lines)
    assert lines
    assert last == f"{shown}: and {len(refused.value.mistakes) - len(lines)} more"


def test_a_single_mistake_is_shown_however_long_it_is() -> None:
    """Cut at the end rather than counted as one of many that nobody sees."""
    (shown,) = mistakes(entry(f"{'wrong' * 204}: 1"))
    assert shown.startswith("models.yaml:4: models/m/wrongwrong")
    assert shown.endswith("…")
