"""The steps behind the commands: one start of a probe, one run of levels, repeats, baselines, files of a search."""
