"""Plays one user's conversation: each request follows the answer before it and the think time."""

from __future__ import annotations

from gevent.event import Event

from harness.load.connection import Exchange
from harness.load.session import PreparedRequest, Session


def play(session: Session, prepared: PreparedRequest, over: Event) -> Exchange | None:
    """Send it, and what its conversation asks next, until that ends or no more may be sent. The last one that
    was sent; None where it was dropped.

    over: is set when no more may be sent.
    """
    at: PreparedRequest | None = prepared
    exchange = None
    try:
        while at is not None:
            exchange = session.ask(at)
            if over.is_set() and exchange is not None and exchange.error == "in_flight":
                break
            at = session.follow(at, exchange)
            if wait := session.back_off(exchange):
                over.wait(wait)
            if at is not None and over.wait(at.request.delay or 0.0):
                break
    finally:  # Locust takes users away by an exception
        if at is not None:
            session.leave(at)
    return exchange
