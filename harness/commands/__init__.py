"""One file per command: it drives the stages, which decide."""
