"""Keeps what happened: raw facts only, nothing derived.

In: moments and bytes counted by the load. Out: one RequestRecord per request that was due, on disk within a second and
readable after any crash. Apart from `stats`, so that a formula can change without a new run.
"""
