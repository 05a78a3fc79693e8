"""Plays an engine, on a machine without a GPU: the simulator behind a real clock, as a process with the engine's API.

In: the engine's flags and environment, requests over HTTP. Out: its log, answers, errors and exit codes. Only ever run
as a process (`harness emulate`, `python -m harness.emulator`): nothing that measures imports it, so it cannot grade
itself. It is TGI unless `--engine` names another, whose face is then in `faces`.

    launcher  options  log  boot  model  scenario  hardware     the start, its lines and its failures
    server  app  http  wire  sse  routes                        one port, and what comes before a route
    native  chat  completions  clouds  docs                     the routes
    bodies  serde  json_reader  problems                        what may be asked, and how a body is refused
    validation  grammar  template                               what is refused after that
    infer  engine  alarm  tokens  vocabulary  metrics  faults   from a valid request to its tokens
    clockwork                                                   any scheduler behind the clock
    faces                                                       vLLM, SGLang, llama.cpp
"""
