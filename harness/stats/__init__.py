"""Computes all figures: pure functions of records.

In: RequestRecords and bounds. Out: a Summary, the one object that reports see. Nothing else computes figures.
"""
