"""The words that a service's tokenizer counts as one token each."""

from __future__ import annotations

from harness.engines.client import Client, NoAnswer
from harness.engines.endpoint import Endpoint
from harness.engines.tokens import find_tokenizer
from harness.workload.vocabulary import Vocabulary, assumed_vocabulary, checked_vocabulary, counted_vocabulary


def vocabulary_of(endpoint: Endpoint) -> Vocabulary:
    """Checked where the service has a tokenizer route, else assumed; its description says which."""
    try:
        with Client(endpoint) as client:
            tokenizer = find_tokenizer(client, endpoint.model_name)
            if tokenizer is None:
                return assumed_vocabulary()
            if tokenizer.spans is not None:
                return checked_vocabulary(tokenizer.spans)
            return counted_vocabulary(tokenizer.count)
    except (NoAnswer, ValueError):
        return assumed_vocabulary()
