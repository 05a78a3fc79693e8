"""Code completion: a file's beginning, a few tokens of it to go on with: `harness bench MODEL --workload code`, or:

locust -f locustfiles/code.py --host http://127.0.0.1:8080 --headless -u 8 -r 8 -t 1m
"""

from harness.load.user import StreamUser


class CodeUser(StreamUser):
    """Medians of the coding service in Patel et al., Splitwise, ISCA 2024 (section III: 1,500 and 13 tokens), before
    the cut; log-normal, because few are long. The spread is our choice.
    """

    input_tokens = "lognormal:1900:1500:64:3500"
    output_tokens = "lognormal:25:40:1:512"
