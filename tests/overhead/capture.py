"""A packet capture of one port of the loopback, and the answers that passed it: what was on the wire, and when.

Stamps are the kernel's, one for each segment, so that a capture that is read late is as true as one that is read at
once; how many segments found no room is told. Needs the right to open a packet socket (CAP_NET_RAW).
"""

from __future__ import annotations

import ctypes
import json
import re
import socket
import struct
import threading
import time
from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass, field
from types import TracebackType

_SO_ATTACH_FILTER, _SO_TIMESTAMPNS, _SO_RCVBUFFORCE, _PACKET_STATISTICS, _SOL_PACKET = 26, 35, 33, 6, 263
_ETH_P_IP, _ROOM = 0x0800, 256 << 20
_TIMESPEC = struct.Struct("<qq")
_ID = re.compile(rb"\r\nx-request-id: ([^\r\n]+)", re.IGNORECASE)


@dataclass(frozen=True)
class Segment:
    """at: CLOCK_REALTIME ns. to_server: its way. client: the client's port, which names the connection."""

    at: int
    client: int
    to_server: bool
    number: int
    payload: bytes


@dataclass
class Wire:
    """One request as it passed. sent: its first segment; tokens: the last segment of each event that holds text; ns."""

    request_id: str
    sent: int
    first_byte: int | None = None
    tokens: list[int] = field(default_factory=list)


class Capture:
    """A context manager: segments are kept from when it is entered until it is left."""

    def __init__(self, port: int) -> None:
        self._port, self.segments, self.lost = port, list[Segment](), 0
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_IP))
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _ROOM)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._filter()
        self._socket.bind(("lo", _ETH_P_IP))
        self._socket.settimeout(0.2)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)

    def _filter(self) -> None:
        """TCP from or to the port, in classic BPF: nothing else on the loopback costs us anything."""
        code = [
            (0x28, 0, 0, 12), (0x15, 0, 8, _ETH_P_IP), (0x30, 0, 0, 23), (0x15, 0, 6, 6), (0xB1, 0, 0, 14),
            (0x48, 0, 0, 14), (0x15, 2, 0, self._port), (0x48, 0, 0, 16), (0x15, 0, 1, self._port),
            (0x06, 0, 0, 0x40000), (0x06, 0, 0, 0),
        ]  # fmt: skip
        program = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *line) for line in code))
        head = struct.pack("HL", len(code), ctypes.addressof(program))
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, head)

    def __enter__(self) -> Capture:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        time.sleep(0.3)  # what was sent last
        self._over.set()
        self._thread.join()
        told = self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
        self.lost = struct.unpack("II", told)[1]
        self._socket.close()

    def _read(self) -> None:
        while True:
            try:
                data, ancillary, _, _ = self._socket.recvmsg(1 << 18, 64)
            except TimeoutError:
                if self._over.is_set():
                    return
                continue
            seconds, rest = _TIMESPEC.unpack(ancillary[0][2])
            if (segment := _segment(data, seconds * 1_000_000_000 + rest, self._port)) is not None:
                self.segments.append(segment)

    def requests(self) -> list[Wire]:
        """All POSTs with an id, with what was answered to each."""
        found = []
        by_connection = defaultdict[int, list[Segment]](list)
        for segment in self.segments:
            by_connection[segment.client].append(segment)
        for client, segments in by_connection.items():
            asked = _Bytes(each for each in segments if each.to_server)
            answered = _Bytes(each for each in segments if not each.to_server)
            found += _exchanges(client, asked, answered)
        return found


def _segment(frame: bytes, at: int, port: int) -> Segment | None:
    """None without payload."""
    head = 14 + 4 * (frame[14] & 15)
    length = struct.unpack_from(">H", frame, 16)[0] or len(frame) - 14  # 0: larger than the field, as on a loopback
    source, target, number = struct.unpack_from(">HHI", frame, head)
    payload = frame[head + 4 * (frame[head + 12] >> 4) : 14 + length]
    if not payload:
        return None
    return Segment(at, source if target == port else target, target == port, number, payload)


class _Bytes:
    """One direction of a connection put together: what was sent again counts once."""

    def __init__(self, segments: object) -> None:
        self.content, self._ends, self._moments = b"", list[int](), list[int]()
        parts, expected = [], None
        for each in segments:  # type: ignore[attr-defined]
            if expected is not None and (each.number - expected) % (1 << 32) > 1 << 31:
                continue
            expected = (each.number + len(each.payload)) % (1 << 32)
            parts.append(each.payload)
            self._ends.append((self._ends[-1] if self._ends else 0) + len(each.payload))
            self._moments.append(each.at)
        self.content = b"".join(parts)

    def at(self, place: int) -> int:
        """When the byte at this place passed."""
        return self._moments[min(bisect_right(self._ends, place), len(self._moments) - 1)]


def _exchanges(client: int, asked: _Bytes, answered: _Bytes) -> list[Wire]:
    """Requests and answers of a kept connection follow one another in the same order."""
    found, place, answer = [], 0, 0
    while (end := asked.content.find(b"\r\n\r\n", place)) >= 0:
        head = asked.content[place:end]
        length = re.search(rb"\r\ncontent-length: (\d+)", head, re.IGNORECASE)
        name = _ID.search(head)
        wire = Wire(name[1].decode() if name else f"{client}", asked.at(place))
        place = end + 4 + (int(length[1]) if length else 0)
        answer = _answer(wire, answered, answer)
        if head.startswith(b"POST"):
            found.append(wire)
    return found


def _answer(wire: Wire, answered: _Bytes, start: int) -> int:
    """Take the answer that begins here; where the next one does."""
    content = answered.content
    body = content.find(b"\r\n\r\n", start) + 4
    if body < 4:
        return start
    wire.first_byte = answered.at(start)
    head = content[start:body].lower()
    if b"transfer-encoding: chunked" not in head:
        length = re.search(rb"\r\ncontent-length: (\d+)", head)
        return body + (int(length[1]) if length else 0)
    text, ends, place = bytearray(), list[tuple[int, int]](), body
    while (line := content.find(b"\r\n", place)) >= 0:
        size = int(content[place:line], 16)
        place = line + 2 + size + 2
        if size == 0 or place > len(content):
            break
        text += content[line + 2 : line + 2 + size]
        ends.append((len(text), place - 3))  # so much of the text is there when this byte of the stream is
    begin = 0
    while (end := text.find(b"\n\n", begin)) >= 0:
        if _holds_text(bytes(text[begin:end])):
            chunk = bisect_right(ends, (end + 1, -1))
            back = ends[chunk][0] - (end + 2)
            wire.tokens.append(answered.at(ends[chunk][1] - back))
        begin = end + 2
    return place


def _holds_text(event: bytes) -> bool:
    data = event.strip().removeprefix(b"data:").strip()
    if not data.startswith(b"{"):
        return False
    choices = json.loads(data).get("choices") or [{}]
    return bool((choices[0].get("delta") or {}).get("content"))
