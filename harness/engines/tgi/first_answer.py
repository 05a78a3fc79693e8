"""Generates one token through TGI's own client, to see whether the service really generates."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator

from harness.engines.client import Client, NoAnswer
from harness.engines.route import proxy


def ask_once(client: Client, timeout: float) -> str | None:
    """Generate one token. None when that worked, else what went wrong. timeout: seconds.

    Through text-generation, the client of TGI's users, where no proxy lies between: it has no option for one.
    """
    if proxy() is not None:
        return None if _generates(client, timeout) else "no answer to a request for one token"
    # Here, because it takes half a second to import, which a service that is known to answer need not cost.
    import text_generation
    from pydantic import ValidationError
    from text_generation import errors

    failures: tuple[type[Exception], ...] = (OSError, ValidationError, KeyError, ValueError, *_refused())
    asker = text_generation.Client(client.url, headers=client.headers(), timeout=int(timeout))
    try:
        with _direct():
            asker.generate("Hi", max_new_tokens=1)
    except errors.ValidationError:
        return None  # it took the request apart and held it against its limits: it is alive
    except failures as error:
        # The client posts to `/` and is strict about the answer's form; an engine may serve the named routes alone.
        return None if _generates(client, timeout) else f"{type(error).__name__}: {error}"
    return None


def _generates(client: Client, timeout: float) -> bool:
    """Whether /generate or /generate_stream gives a token, or holds the request against its limits."""
    for route in ("/generate", "/generate_stream"):
        try:
            reply = client.post(route, {"inputs": "Hi", "parameters": {"max_new_tokens": 1}}, timeout=timeout)
        except NoAnswer:
            continue
        said = any(word in reply.body for word in (b'"generated_text"', b'"token"', b'"validation"'))
        if said and (reply.ok or reply.status == 422):
            return True
    return False


def _refused() -> tuple[type[Exception], ...]:
    """What TGI's client raises for an answer that is not a success, except for validation."""
    from text_generation import errors

    return (
        errors.GenerationError,
        errors.IncompleteGenerationError,
        errors.OverloadedError,
        errors.BadRequestError,
        errors.ShardNotReadyError,
        errors.ShardTimeoutError,
        errors.NotFoundError,
        errors.RateLimitExceededError,
        errors.NotSupportedError,
        errors.UnknownError,
    )


@contextlib.contextmanager
def _direct() -> Iterator[None]:
    """No proxy of the environment between the harness and the service: the client has no option for it. And no word
    about the client's own use of pydantic 1.
    """
    before = os.environ.get("NO_PROXY")
    os.environ["NO_PROXY"] = "*"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        if before is None:
            del os.environ["NO_PROXY"]
        else:
            os.environ["NO_PROXY"] = before
