"""llama.cpp's own server with a tiny model, for tests of what harness says and does with llama.cpp."""
