"""Random faults against random commands with random signals: `make chaos`."""
