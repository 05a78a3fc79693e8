"""A process that is TGI to the outside, on a machine without a GPU: the simulator behind a real clock.

Only ever run as a process (`harness emulate`, `python -m harness.emulator`); nothing that measures imports it, so that it
cannot grade itself.
"""
