"""Traces of real requests, and data sets of what people ask: files in, rows out.

`TRACE_FORMS` lists the forms that are known; each recognises its files by their first lines and says the unit of their
moments and the size of their blocks, and what says so. Read is what is sent: a window of the trace, or the first rows
of a data set. Rows that are dropped, altered or moved are counted with the reason.
"""

from __future__ import annotations

from harness.workload.traces.azure import Azure
from harness.workload.traces.bailian import Bailian
from harness.workload.traces.burstgpt import BurstGpt
from harness.workload.traces.chat_log import ChatLog
from harness.workload.traces.dynamo import Dynamo
from harness.workload.traces.form import TraceForm
from harness.workload.traces.mooncake import Mooncake
from harness.workload.traces.otel import OpenTelemetry
from harness.workload.traces.records import RunRecords
from harness.workload.traces.sharegpt import ShareGpt
from harness.workload.traces.table import Table
from harness.workload.traces.tracelab import TraceLab
from harness.workload.traces.weka import Weka

TRACE_FORMS: tuple[TraceForm, ...] = (
    Azure(),
    BurstGpt(),
    Bailian(),
    Mooncake(),
    ShareGpt(),
    ChatLog(),
    Weka(),
    OpenTelemetry(),
    Dynamo(),
    TraceLab(),
    RunRecords(),
    Table(),  # the last: it takes any table that none of the others knows
)
