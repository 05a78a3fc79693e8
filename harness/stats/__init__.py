"""What it amounts to: pure functions of records.

In: RequestRecords and bounds. Out: a Summary, the one object that reports see. The only place that computes figures.
"""
