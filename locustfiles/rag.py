"""Questions about retrieved passages, which many share: `harness bench MODEL --workload rag`, or by hand:

locust -f locustfiles/rag.py --host http://127.0.0.1:8080 --headless -u 8 -r 8 -t 2m
"""

from locust import task

from harness.load.user import StreamUser

PASSAGES, TOKENS = 200, 1024


class RagUser(StreamUser):
    """Two passages of 1,024 tokens to a question, as LlamaIndex retrieves them by default (its documentation:
    chunk_size 1024, similarity_top_k 2). Of 200 passages few are asked for often; that, and question and answer, are
    our choice.
    """

    input_tokens = "lognormal:40:20:8:200"
    output_tokens = "lognormal:150:90:16:512"
    system_tokens = 80

    @task
    def look_up(self):
        found = {min(PASSAGES, int(self.talk.random.paretovariate(0.6))) for _ in range(2)}
        passages = [self.words(TOKENS, shared_by=f"passage {number}") for number in sorted(found)]
        question, answer = self.talk.chat.lengths(self.talk.number)
        text = " ".join([*passages, self.words(question)])
        yield self.ask(text, tokens=TOKENS * len(found) + question, answer_tokens=answer)
