"""Sends the load and records the answers.

In: a workload, an arrival process and an endpoint. Out: a journal of RequestRecords. Only this folder and locustfiles/
may import locust, and only in a process of its own.
"""
