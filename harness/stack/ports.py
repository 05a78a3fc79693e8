"""Ports of this machine: which are free, and who holds one."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Collection

import psutil

from harness.errors import MissingError

_PROXY_ENDS_WITHIN = 3.0  # seconds

_reserved: dict[int, socket.socket] = {}


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def ports_from(first: int, count: int, *, reserve: bool = False, avoid: Collection[int] = ()) -> list[int]:
    """The first `count` free ports from this one on: for services that people will type the address of.

    reserve: keep other harnesses of this host from choosing them too, until `release_port`.
    """
    found: list[int] = []
    for port in range(first, 65536):
        if len(found) == count:
            break
        free = port not in _reserved and port not in avoid and not port_taken(port)
        if free and (not reserve or _reserve(port)):
            found.append(port)
    return found


def _reserve(port: int) -> bool:
    """Between choosing a port and binding it lie seconds. The mark is a name in the kernel that goes with this process;
    False when another has it.
    """
    mark = socket.socket(socket.AF_UNIX)
    try:
        if sys.platform.startswith("linux"):  # no abstract names elsewhere; there the later one finds the port taken
            mark.bind(f"\0harness-port-{port}")
    except OSError:
        mark.close()
        return False
    _reserved[port] = mark
    return True


def release_port(port: int) -> None:
    """Others may choose it again. Harmless for a port that was not reserved."""
    if mark := _reserved.pop(port, None):
        mark.close()


def port_taken(port: int, host: str = "127.0.0.1") -> bool:
    """Whether binding it would fail. A port that is merely in TIME_WAIT is free."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError:
            return True
        return False


def require_free_port(port: int, host: str = "127.0.0.1") -> None:
    """Raises MissingError that says who holds it, where that can be seen. Docker's proxy of a container that was just
    stopped may hold it for a moment longer, and is waited for.
    """
    until = time.monotonic() + _PROXY_ENDS_WITHIN
    while port_taken(port, host):
        holder = _holder_of(port)
        if holder is not None and holder.startswith("docker-proxy") and time.monotonic() < until:
            time.sleep(0.1)
            continue
        shown = f"`ss -ltnp 'sport = :{port}'` shows it"
        raise MissingError(
            f"port {port} on {host} is in use{f' by {holder}' if holder else ''}",
            advice=f"Stop what listens there ({shown}) or give the model another `port:`.",
        )


def _holder_of(port: int) -> str | None:
    try:
        found = [
            c
            for c in psutil.net_connections("tcp")
            if c.status == psutil.CONN_LISTEN and c.laddr and c.laddr.port == port
        ]
        return next(f"{psutil.Process(c.pid).name()} (process {c.pid})" for c in found if c.pid)
    except (psutil.Error, OSError, StopIteration):
        return None
