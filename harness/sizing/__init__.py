"""What is known of a model before it is started: its size, whether it fits a GPU, and what would make it fit.

In: an entry of the catalogue and a GPU sheet. Out: a Fit. By the memory law of the engine that is to serve it; nothing
here starts, asks or prints.
"""
