"""Long texts, short answers, prefill-heavy: `harness bench MODEL --workload summarise`, or by hand:

locust -f locustfiles/summarise.py --host http://127.0.0.1:8080 --headless -u 8 -r 8 -t 1m
"""

from harness.load.user import StreamUser


class SummariseUser(StreamUser):
    """A summary of the CNN/DailyMail articles is a fourteenth of the text (See et al., ACL 2017: 781 and 56 words),
    which is the ratio here, for texts of some 1,400 words.
    """

    input_tokens = "normal:1800:400:512:3072"
    output_tokens = "normal:120:40:16:256"
