"""Agents: a long shared prefix, many short turns, results of tools: `harness bench MODEL --workload agents`,
or by hand:

locust -f locustfiles/agents.py --host http://127.0.0.1:8080 --headless -u 8 -r 8 -t 5m
"""

from locust import task

from harness.load.user import StreamUser


class AgentUser(StreamUser):
    """The shape of coding agents' traces: tens of turns, each with a few hundred to a few thousand new tokens, a
    hundred times as many read as written ("Serving Agentic Workloads at Scale with vLLM x Mooncake", vLLM blog, 6 May
    2026). Scaled down by about eight, so that a context of 16k holds it; the spreads are our choice.
    """

    input_tokens = "lognormal:150:80:20:600"
    output_tokens = "lognormal:60:50:8:400"
    system_tokens = "2k"
    turns = "uniform:4:12"

    @task
    def work(self):
        yield self.ask(think_time=0.0)
        for _ in range(self.talk.turns - 1):
            tool = self.talk.random.expovariate(1.0)  # seconds that the tool takes; most are quick
            result = int(self.talk.random.lognormvariate(5.3, 0.8))  # tokens: a median of 200, a mean of 280
            yield self.ask(tokens=max(10, min(result, 2000)), think_time=tool)
