"""One token of an answer: a label, or yes and no. `harness bench MODEL --workload classify`, or by hand:

locust -f locustfiles/classify.py --host http://127.0.0.1:8080 --headless -u 8 -r 8 -t 1m
"""

from harness.load.user import StreamUser


class ClassifyUser(StreamUser):
    """Texts in the length of film reviews (IMDb, Maas et al., ACL 2011: some 230 words, four words to three being our
    rule of thumb for tokens), behind one instruction that all share. TTFT is all there is to it.
    """

    input_tokens = "lognormal:310:230:30:1500"
    output_tokens = 1
    system_tokens = 120
