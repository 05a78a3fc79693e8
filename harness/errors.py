"""Everything that can go wrong and is not a bug, with the exit code that the command line ends with.

    HarnessError
        ConditionNotMet    1    done, but a gate, an SLO or a validity condition that was asked for does not hold
        UsageError         2    wrong option or bad input file
        MissingError       3    this machine lacks something: Docker, a GPU runtime, a token, disk, a free port
        ServiceError       4    the service failed: did not start, ran out of memory, died, went away
        InternalError     70    a fault of harness itself
        Interrupted      130    Ctrl-C

A message has up to three parts: what was found, where, and what to do. A library's own exception is translated where
that library is used and kept as the cause. A traceback that reaches the user is a bug in the harness.
"""

from __future__ import annotations

import errno

LONGEST = 1200  # characters of what was found, which is to be read on one line


class HarnessError(Exception):
    """Base of all expected failures.

    found: what is wrong. where: the file, key, option or service concerned. advice: what to do about it.
    """

    exit_code = 1

    def __init__(self, found: str, *, where: str | None = None, advice: str | None = None) -> None:
        found = found if len(found) <= LONGEST else f"{found[: LONGEST - 1]}…"  # it may show what was given
        self.found, self.where, self.advice = found, where, advice
        place = where.replace("\n", "\\n") if where else None  # a file's name may hold a line end
        text = f"{place}: {found}" if place else found
        if advice:
            text = f"{text}{'' if text[-1:] in '.?!' else '.'} {advice}"
        super().__init__(text)


class ConditionNotMet(HarnessError):
    """The work is done and recorded, but something that the user asked for does not hold."""

    exit_code = 1


class UsageError(HarnessError):
    """The command line or an input file is wrong; nothing was started."""

    exit_code = 2


class MissingError(HarnessError):
    """This machine lacks something that the command needs."""

    exit_code = 3


_WRONG_PLACE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EINVAL)


def cannot_write(error: OSError, path: object) -> HarnessError:
    """UsageError where the path that was named is wrong, MissingError where this machine lacks space or leave."""
    kind = UsageError if error.errno in _WRONG_PLACE else MissingError
    return kind(f"cannot be written: {error.strerror}", where=str(path))


class ServiceError(HarnessError):
    """The engine did not start, ran out of memory, died, or cannot be reached."""

    exit_code = 4


class InternalError(HarnessError):
    """A fault of harness itself: what nobody expected. 70 is EX_SOFTWARE of sysexits.h."""

    exit_code = 70


class Interrupted(HarnessError):
    """The user pressed Ctrl-C, or the process was told to end."""

    exit_code = 130

    def __init__(self, found: str = "interrupted", **parts: str | None) -> None:
        super().__init__(found, **parts)
