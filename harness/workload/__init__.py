"""Makes what is asked, independent of when.

In: a distribution of lengths, a trace or a locustfile's parameters, and a seed. Out: Requests, the same ones for the
same seed. Knows no clock, no engine and no network.
"""
