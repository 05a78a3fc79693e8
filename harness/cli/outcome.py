"""Runs a command: every failure becomes one line on stderr and an exit code."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from harness import terminal
from harness.cli.app import app
from harness.errors import HarnessError, InternalError, Interrupted, MissingError, UsageError
from harness.input_files import brief
from harness.redaction import redact

# The root of typer's own errors: click's where typer builds on click (Python 3.10), its own elsewhere.
_WrongUsage: type[Exception] = next(
    each for each in reversed(typer.BadParameter.__mro__) if each.__module__ != "builtins"
)


def run(arguments: Sequence[str]) -> int:
    """Run one command; every expected failure becomes one line on stderr (and, with --json, a document) and a code."""
    terminal.show_what_can_be_shown()
    try:
        return _invoke(arguments)
    except (KeyboardInterrupt, typer.Abort):
        return _failed(Interrupted(), arguments)
    except HarnessError as failure:
        return _failed(failure, arguments)
    except typer.Exit as ended:
        return ended.exit_code
    except BrokenPipeError:
        if "--help" not in arguments:
            raise
        terminal.discard_results()  # nobody reads the help to its end
        return 0
    except MemoryError:
        return _failed(MissingError("out of memory", advice="Free some, or ask for less at once."), arguments)
    except OSError as error:
        if error.errno is None:
            return _failed(_fault(error), arguments)
        return _failed(_lacking(error), arguments)
    except _WrongUsage as wrong:
        return _wrong_usage(wrong, arguments)
    except Exception as error:  # noqa: BLE001  # the outermost border: whatever gets here is a fault of ours
        return _failed(_fault(error), arguments)


def _fault(error: Exception) -> InternalError:
    """The line for people; the traceback goes into a file of mode 0600 under the state folder, to be sent along."""
    import traceback

    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "harness" in frame.filename]
    place = f" ({'/'.join(Path(frames[-1].filename).parts[-2:])}:{frames[-1].lineno})" if frames else ""
    found = f"a fault of harness itself: {type(error).__name__}: {brief(error)}{place}"
    advice = "Please report it as an issue of harness"
    try:
        from harness.stack.state import subfolder

        path = subfolder("faults") / f"{os.getpid()}-{time.time_ns()}.txt"
        path.touch(mode=0o600)
        path.write_text(redact("".join(traceback.format_exception(error))), encoding="utf-8", errors="backslashreplace")
        advice += f", with {path}"
    except (OSError, HarnessError):
        pass  # the line above must come in any case
    return InternalError(found, advice=f"{advice}.")


def _invoke(arguments: Sequence[str]) -> int:
    """Not by calling the app: that ends in silence on Ctrl-C, and with 1 on a pipe that nobody reads any more."""
    command = typer.main.get_command(app)
    with command.make_context("harness", list(arguments)) as context:
        return command.invoke(context) or 0


# What may happen to any file at any time.
_ADVICE = {
    errno.ENOSPC: "Free some space, or write elsewhere.",
    errno.EDQUOT: "Free some space, or write elsewhere.",
    errno.EROFS: "Name a folder that can be written.",
    errno.EACCES: "Change its permissions, or name another place.",
    errno.EPERM: "Change its permissions, or name another place.",
    errno.EMFILE: "Allow more open files: `ulimit -n 65536`.",
    errno.ENFILE: "Close some programs: this machine has no file descriptors left.",
}


def _lacking(error: OSError) -> MissingError:
    found = error.strerror or str(error)
    where = None if error.filename is None else str(error.filename)
    return MissingError(found[:1].lower() + found[1:], where=where, advice=_ADVICE.get(error.errno or 0))


def _wrong_usage(wrong: Any, arguments: Sequence[str]) -> int:
    context = getattr(wrong, "ctx", None)
    if type(wrong).__name__ == "NoArgsIsHelpError":
        terminal.print_result(context.get_help() if context else str(wrong))
        return 2
    advice = f"See {context.command_path} --help." if context is not None else None
    return _failed(UsageError(wrong.format_message(), advice=advice), arguments)


def _failed(failure: HarnessError, arguments: Sequence[str]) -> int:
    terminal.say(f"harness: {failure}")
    if "--json" in arguments:
        terminal.print_json({"error": {"message": str(failure), "exit_code": failure.exit_code}})
    return failure.exit_code
