"""Which processes of this host answer at an address, as far as the kernel shows it."""

from __future__ import annotations

import os
import socket
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil

# They listen here and pass everything on: to another machine, or into a container (docker-proxy, seen apart).
_FORWARDERS = ("ssh", "kubectl", "socat", "cloudflared", "tailscaled", "nginx", "haproxy", "traefik", "envoy")
_DOCKER_PROXY = "docker-proxy"


class ServedElsewhere(Exception):
    """The service does not run on this machine, or it cannot be seen whether it does; the text says so."""


@dataclass(frozen=True)
class ServingProcesses:
    """name: of the one that listens. members: it and what belongs to it. address: of the container into which it
    passes everything on. own: it answers itself, and passes nothing on to another machine.
    """

    name: str
    members: frozenset[int]
    address: str | None = None
    own: bool = True

    @property
    def tell_apart(self) -> bool:
        """Whether it is known which processes are meant."""
        return bool(self.members) or self.address is not None

    def hold(self, processes: Set[int]) -> bool:
        """Whether one of these is meant."""
        if self.members & processes:
            return True
        return self.address is not None and any(_has_address(each, self.address) for each in processes)


def serving_processes(url: str) -> ServingProcesses:
    """Raises Elsewhere."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    if not _this_machine(host):
        raise ServedElsewhere(f"the service runs elsewhere ({host})")
    try:
        listener = _listener(port)
        if listener is None:
            return ServingProcesses(f"the process at port {port}", frozenset())
        name, words = listener.name(), listener.cmdline()
        if name == _DOCKER_PROXY:
            address = words[words.index("-container-ip") + 1] if "-container-ip" in words else None
            return ServingProcesses(name, frozenset(), address)
        return ServingProcesses(name, _process_tree(listener), own=not name.startswith(_FORWARDERS))
    except (psutil.Error, ProcessLookupError) as error:  # it may end while it is looked at
        raise ServedElsewhere(
            f"the process that answers at port {port} cannot be seen: {type(error).__name__}"
        ) from error


def _this_machine(host: str) -> bool:
    try:
        meant = {str(each[4][0]) for each in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    own = {each.address.partition("%")[0] for addresses in psutil.net_if_addrs().values() for each in addresses}
    return any(each in own or each.startswith("127.") or each == "::1" for each in meant)


def _listener(port: int) -> psutil.Process | None:
    """None where the kernel does not say: the process is another user's."""
    try:
        listening = psutil.net_connections("tcp")
    except psutil.AccessDenied:
        return None
    for each in listening:
        if each.status == psutil.CONN_LISTEN and each.laddr and each.laddr.port == port and each.pid:
            return psutil.Process(each.pid)
    return None


def _process_tree(listener: psutil.Process) -> frozenset[int]:
    """All that were started together: up to the first of its process group, and down from there. A router and the
    shards that hold the GPU are children of one launcher.
    """
    group, first = os.getpgid(listener.pid), listener
    while (above := first.parent()) is not None and above.pid > 1 and os.getpgid(above.pid) == group:
        first = above
    return frozenset({first.pid, *(each.pid for each in first.children(recursive=True))})


def _has_address(process: int, address: str) -> bool:
    """Whether a process lives in the network namespace that has this address."""
    try:
        return f"|-- {address}\n" in Path(f"/proc/{process}/net/fib_trie").read_text(encoding="ascii")
    except OSError:
        return False
