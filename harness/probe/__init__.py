"""Decides which setting a probe tries next, and what an outcome proves: ask and tell, starts nothing.

In: outcomes of starts and loads. Out: the next setting, the limits with their evidence, the capacity card, advice.
"""
