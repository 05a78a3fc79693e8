"""An instruction with an excerpt, a function as the answer: `harness bench MODEL --workload code`, or by hand:

locust -f locustfiles/code.py --host http://127.0.0.1:8080 --headless -u 8 -r 8 -t 1m
"""

from harness.load.user import StreamUser


class CodeUser(StreamUser):
    """Our choice: the answer is somewhat longer than the question, and almost all of the time is decode."""

    workload = "code"
    input_tokens = "lognormal:450:250:64:1536"
    output_tokens = "normal:600:180:64:1024"
