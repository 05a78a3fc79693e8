"""Commands of the catalogue of models."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from harness.cli.app import app, models_app, show
from harness.cli.options import (
    CatalogueOption,
    DtypeOption,
    EngineOption,
    GpuOption,
    GpusOption,
    JsonOption,
    ModelsArg,
    QuantizeOption,
)
from harness.errors import UsageError


@models_app.command("list")
def models_list(catalogue: CatalogueOption = None, json: JsonOption = False) -> int:
    """List the catalogue.

    \b
    Example: harness models list
    """
    from harness.commands.models import list_models, list_text

    rows = list_models(catalogue)
    show(json, [each.as_json() for each in rows], list_text(rows))
    return 0


@models_app.command("check")
def models_check(
    models: ModelsArg = None,
    gpu: GpuOption = None,
    gpus: GpusOption = None,
    dtype: DtypeOption = None,
    quantize: QuantizeOption = None,
    engine: EngineOption = None,
    all_gpus: Annotated[bool, typer.Option("--all-gpus", help="A table of every known GPU.")] = False,
    catalogue: CatalogueOption = None,
    json: JsonOption = False,
) -> int:
    """Check whether models fit their GPU, before any start.

    All of the catalogue where none is named. Says why one does not fit and what would, and whether the engine's release
    serves the architecture at all. Exit 1 where one does not fit or cannot be served.

    \b
    Example: harness models check llama-3.1-8b --gpu L4
    Any model: harness models check Qwen/Qwen3-8B --all-gpus
    """
    from harness.commands.models import EntryOverrides, all_gpus_text, check_all_gpus, check_models
    from harness.sizing.check import check_text

    settings = EntryOverrides(gpu, gpus, dtype, quantize, engine)
    if all_gpus:
        if gpu is not None:
            raise UsageError("--gpu and --all-gpus cannot be combined")
        tables = check_all_gpus(models or [], catalogue=catalogue, settings=settings)
        show(json, [each.as_json() for table in tables for each in table], all_gpus_text(tables))
        return 0 if all(any(each.good for each in table) for table in tables) else 1
    verdicts = check_models(models or [], catalogue=catalogue, settings=settings)
    show(json, [each.as_json() for each in verdicts], check_text(verdicts))
    return 0 if all(each.good for each in verdicts) else 1


@models_app.command("add")
def models_add(
    repo: Annotated[str, typer.Argument(metavar="HUB_ID", help="A Hub id or a local directory.")],
    name: Annotated[
        Optional[str], typer.Option(help="Its name in the catalogue. Default: from the id.", metavar="NAME")
    ] = None,
    gpu: GpuOption = None,
    gpus: GpusOption = None,
    dtype: DtypeOption = None,
    quantize: QuantizeOption = None,
    engine: EngineOption = None,
    catalogue: CatalogueOption = None,
    json: JsonOption = False,
) -> int:
    """Add a model of the Hub to the catalogue.

    Revision, sizes and defaults are filled in from the Hub. The engine is the catalogue's own where that serves the
    model, else one that does. Exit 1 where the entry that was written does not fit the GPU.

    \b
    Example: harness models add Qwen/Qwen2.5-7B-Instruct --gpu L4
    """
    from harness.commands.models import EntryOverrides, add_model, add_text

    settings = EntryOverrides(gpu, gpus, dtype, quantize, engine)
    added = add_model(repo, name=name, catalogue=catalogue, settings=settings)
    show(json, added.as_json(), add_text(added))
    return 0 if added.good else 1


@models_app.command("update")
def models_update(
    models: ModelsArg = None,
    write: Annotated[bool, typer.Option("--write", help="Put what has changed into the catalogue.")] = False,
    catalogue: CatalogueOption = None,
    json: JsonOption = False,
) -> int:
    """Compare entries with the Hub as it is now.

    Revision, name and size; of all entries where none is named.

    \b
    Example: harness models update qwen2.5-7b --write
    """
    from harness.commands.models import update_models, update_text

    updates = update_models(models or [], catalogue=catalogue, write=write)
    show(json, [each.as_json() for each in updates], update_text(updates))
    return 0 if not any(each.problem for each in updates) else 1


@app.command()
def migrate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A name of models.yaml, or a Hub id that it serves.")],
    to: Annotated[str, typer.Option(metavar="ENGINE", help="`vllm`, `sglang` or `llamacpp`.")],
    write: Annotated[Optional[str], typer.Option(metavar="NAME", help="Add the new entry under this name.")] = None,
    repo: Annotated[
        Optional[str], typer.Option(help="Other weights, where the engine needs them (GGUF).", metavar="HUB_ID")
    ] = None,
    file: Annotated[
        Optional[str], typer.Option(help="The one file of the repo that is served (GGUF).", metavar="NAME")
    ] = None,
    catalogue: CatalogueOption = None,
    json: JsonOption = False,
) -> int:
    """Translate an entry for another engine.

    What each setting becomes, what has no counterpart, and what changes by default.

    \b
    Example: harness migrate qwen2.5-7b --to vllm --write qwen2.5-7b-vllm
    """
    from harness.commands import migrate as migration

    found = migration.migrate(model, to, write=write, repo=repo, file=file, catalogue=catalogue)
    show(json, found.as_json(), found.as_text())
    return 0
