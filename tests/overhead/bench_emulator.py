"""How many token events per second the emulator sends, on one core, with one write per token.

    python tests/overhead/bench_emulator.py [--streams 256] [--tokens 1000]

The engine is told to be as fast as it can (`--speed`), so that what is measured is the emulator's own cost. The client
is a bare epoll loop in this process; the figure is events per second of the emulator's processor time.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import select
import socket
import subprocess
import sys
import time

import psutil

START = re.compile(r"listening on http://127\.0\.0\.1:(\d+)")


def start() -> tuple[subprocess.Popen[str], int]:
    """An emulator whose steps take no time, on a free port."""
    command = [sys.executable, "-m", "harness.emulator", "--model-id", "Qwen/Qwen2.5-0.5B", "--gpu", "H100"]
    command += ["--port", "0", "--max-concurrent-requests", "2000", "--speed", "1000000"]
    environment = {**os.environ, "LOG_LEVEL": "error", "HOSTNAME": "127.0.0.1"}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stderr is not None
    for line in process.stderr:
        found = START.search(line)
        if found:
            return process, int(found[1])
    raise SystemExit("the emulator did not start")


def request(tokens: int) -> bytes:
    body = json.dumps({"inputs": "one two three", "parameters": {"max_new_tokens": tokens}}).encode()
    head = f"POST /generate_stream HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    return f"{head}\r\n\r\n".encode() + body


def writes(pid: int) -> int:
    """Write calls of a process so far."""
    with open(f"/proc/{pid}/io", encoding="ascii") as counters:
        return next(int(line.split()[1]) for line in counters if line.startswith("syscw"))


def load(port: int, streams: int, tokens: int) -> tuple[int, int, float]:
    """Events, reads and seconds until all streams ended."""
    poll, open_sockets = select.epoll(), {}
    for _ in range(streams):
        sock = socket.create_connection(("127.0.0.1", port))
        open_sockets[sock.fileno()] = sock
        poll.register(sock.fileno(), select.EPOLLIN)
    begun = time.perf_counter()
    for sock in open_sockets.values():
        sock.sendall(request(tokens))
    events = reads = 0
    while open_sockets:
        for fd, _ in poll.poll():
            data = open_sockets[fd].recv(65536)
            reads += 1
            events += data.count(b"data: ")
            if not data or data.endswith(b"0\r\n\r\n"):
                poll.unregister(fd)
                open_sockets.pop(fd).close()
    return events, reads, time.perf_counter() - begun


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--streams", type=int, default=256)
    arguments.add_argument("--tokens", type=int, default=1000)
    given = arguments.parse_args()
    process, port = start()
    try:
        load(port, 8, 50)
        emulator = psutil.Process(process.pid)
        before, written = sum(emulator.cpu_times()[:2]), writes(process.pid)
        events, reads, seconds = load(port, given.streams, given.tokens)
        used = sum(emulator.cpu_times()[:2]) - before
        written = writes(process.pid) - written
    finally:
        process.terminate()
        process.wait()
    print(f"streams                        {given.streams}")
    print(f"token events                   {events}")
    print(f"events per second              {events / seconds:,.0f}")
    print(f"events per processor second    {events / used:,.0f}")
    print(f"microseconds per event         {used / events * 1e6:.1f}")
    print(f"writes of the emulator         {written} ({written / events:.3f} per event)")
    print(f"events per read at the client  {events / reads:.2f}")


if __name__ == "__main__":
    main()
