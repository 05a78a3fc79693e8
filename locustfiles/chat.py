"""Conversations: the history grows by the model's own answers. `harness bench MODEL --workload chat`, or by hand:

locust -f locustfiles/chat.py --host http://127.0.0.1:8080 --headless -u 8 -r 8 -t 5m
"""

from harness.load.user import StreamUser


class ChatUser(StreamUser):
    """A ShareGPT conversation has 3.5 turns (94,145 conversations with 330,239 turns; Yan et al., ShareChat,
    arXiv:2512.17843, table 1), of 161 and 338 tokens (Kwon et al., PagedAttention, SOSP 2023). Spreads and the time
    that a user reads, thinks and types are our choice.
    """

    workload = "questions"
    turns = "exponential:3:1:30"  # 3.5 on average, since there is one at least
    think_time = "lognormal:10s:8s:1s:60s"
