"""Models how an engine behaves, in values: no sockets, no sleeping, time comes in as a number.

In: a model's shape, a GPU's data sheet, the engine's flags, requests with arrival times. Out: budgets, step times, and
the order of everything. Used by the emulator behind a real clock and by planning in virtual time. `laws` say how large
the KV cache of other engines than TGI becomes, `policies` who of their requests gets it. `accuracy`
is a tool: how far all this is from published measurements.
"""
