"""Who is to blame for events that arrive together: the server that wrote them so, not a client that was waiting."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from harness.load import runner
from harness.load.plan import LoadPlan
from harness.measure.journal import read_journal
from harness.measure.run_folder import Level
from harness.workload.workload import drawn

WRITES, TOGETHER = 6, 3


def _event(index: int, last: bool) -> bytes:
    token = {"id": index, "text": " a", "logprob": -1.0, "special": False}
    details = {"finish_reason": "length", "generated_tokens": WRITES * TOGETHER, "seed": None, "input_length": 20}
    body = {
        "index": index,
        "token": token,
        "generated_text": " a" if last else None,
        "details": details if last else None,
    }
    return f"data:{json.dumps(body)}\n\n".encode()


class _Gluing(BaseHTTPRequestHandler):
    """Streams events by threes, 30 ms apart."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for write in range(WRITES):
            time.sleep(0.03)
            first = write * TOGETHER
            text = b"".join(_event(each + 1, each + 1 == WRITES * TOGETHER) for each in range(first, first + TOGETHER))
            self.wfile.write(b"%x\r\n%b\r\n" % (len(text), text))
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *arguments: object) -> None:
        pass


def test_events_that_the_server_wrote_together_are_not_read_late(tmp_path: Path) -> None:
    """An idle client reads at once what comes; that two of three events have no gap is the server's doing."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Gluing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        runner.run(
            LoadPlan(
                url=f"http://127.0.0.1:{server.server_port}",
                api="tgi",
                model_name="tgi",
                stream=True,
                timeout=30.0,
                workload=drawn("chat", "20", str(WRITES * TOGETHER), seed=1).as_dict(),
                seed=1,
                folder=str(tmp_path),
                clock_monotonic=time.monotonic(),
            ),
            [Level(0, users=1, requests=8)],
        )
    finally:
        server.shutdown()
        server.server_close()
    journal = read_journal(tmp_path)
    records = list(journal.records)
    assert [record.status for record in records] == ["completed"] * 8
    assert sum(record.glued_events for record in records) == 8 * WRITES * (TOGETHER - 1)
    samples = [note for note in journal.notes if note["kind"] == "sample"]
    events, late = (sum(sample[name] for sample in samples) for name in ("events", "late_events"))
    assert events > 50
    assert late < events / 10  # a busy machine may hold the client up now and then
