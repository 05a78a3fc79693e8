"""Renders results: a Document per kind of result, a file per format; computes nothing."""
