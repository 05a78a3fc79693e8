"""How it is shown: one file per format, each a function of a Summary; computes nothing."""
