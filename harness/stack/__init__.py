"""Starts services: renders stacks, runs containers or processes, and waits for their first answers.

In: a Model, a Gpu and an engine. Out: a Service that was started, watched and can be stopped, and its Endpoint.
Rendering is pure; effects are those of docker.py and the files on it, and of process.py.
"""
