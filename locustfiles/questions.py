"""Short questions, medium answers, each alone: bench's default, `--workload questions`, or by hand:

locust -f locustfiles/questions.py --host http://127.0.0.1:8080 --headless -u 8 -r 8 -t 1m
"""

from harness.load.user import StreamUser


class QuestionUser(StreamUser):
    """Means of the ShareGPT conversations in Kwon et al., PagedAttention, SOSP 2023 (161 and 338 tokens), before the
    cut; log-normal, because few questions are long. The spread is our choice.
    """

    input_tokens = "lognormal:161:160:8:2048"
    output_tokens = "lognormal:338:250:16:1024"
