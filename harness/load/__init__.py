"""When it is asked, and the asking.

In: a workload, an arrival process and an endpoint. Out: a journal of RequestRecords. Only this folder and locustfiles/
may import locust, and only in a process of its own.
"""
