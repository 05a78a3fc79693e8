"""RequestRecord, the central type: what happened to one request, raw facts only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

# What may be noted of an answer. A word may be followed by a colon and more about it.
NOT_STREAMED = "not_streamed"  # one whole document where a stream was asked for; behind the colon its content type
CUT_AFTER_END = "cut_after_end"  # whole by its own last message, behind which the connection ended out of order
INVISIBLE = "invisible"  # tokens were generated, and none of them is text: special tokens, hidden reasoning

CountTold = Literal["per_event", "per_answer"]
Status = Literal["completed", "failed", "dropped", "in_flight"]
STATUSES: tuple[Status, ...] = ("completed", "failed", "dropped", "in_flight")


@dataclass(slots=True)
class RequestRecord:
    """One request that was due. All moments are seconds since the run's start (float64), null where they never came.

    scheduled_at: when it should have been sent (closed loop: when it was). sent_at: when its bytes were handed to the
    kernel, or, where no connection could be had, when one was asked for; null for a dropped one. first_byte_at: first
    byte of the answer, headers included.
    token_at, token_count: one entry per event that carries tokens, equal lengths, in order of arrival. An
    end-of-sequence token counts in token_count, but an event whose text is empty never is the first token.
    count_told: `per_event`: token_count is what each event holds, as the server or its protocol tells. `per_answer`:
    only output_tokens is known, and token_count is the least that an event can hold. Null: no count is known.
    first_share: of a `per_answer`, what share of the answer's text its first event held, by bytes.
    input_tokens, output_tokens: the server's own counts, null if it tells none.
    asked_*: tokens that the workload meant. history_tokens: this many of the prompt's were said before the question, as
    far as the workload counts them; null for a single request. glued_events: events that arrived together
    with an earlier one.
    queue_time: seconds that the request waited inside the server, where the server tells.
    error_kind: a key of the summary's `errors`; null unless the request failed or was dropped.
    error_message: what the service itself said of its error, cut, without secrets; null where it said nothing.
    notes: words such as NOT_STREAMED, parted by commas.
    """

    request_id: str
    level: int
    scheduled_at: float
    status: Status
    sent_at: float | None = None
    first_byte_at: float | None = None
    token_at: list[float] = field(default_factory=list)
    token_count: list[int] = field(default_factory=list)
    finished_at: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    finish_reason: str | None = None
    http_status: int | None = None
    error_kind: str | None = None
    session_id: str | None = None
    turn: int | None = None
    asked_input_tokens: int | None = None
    asked_output_tokens: int | None = None
    history_tokens: int | None = None
    glued_events: int = 0
    queue_time: float | None = None
    count_told: CountTold | None = None
    first_share: float | None = None
    notes: str | None = None
    error_message: str | None = None


def from_first_text(
    token_at: list[float], token_count: list[int], first_content: int | None
) -> tuple[list[float], list[int]]:
    """token_at and token_count of a record, from all events of an answer that carry tokens.

    first_content: index of the first event with text, None without. Tokens of the events before it move into it: a user
    sees nothing of them, but they were generated, and the counts must still add up to the server's own.
    """
    if first_content is None:
        return [], []
    return token_at[first_content:], [sum(token_count[: first_content + 1]), *token_count[first_content + 1 :]]
