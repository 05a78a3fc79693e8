"""One file per command; each reads like the table of contents of its stage. They drive; the stages decide."""
