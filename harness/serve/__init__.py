"""From a target to a service that answers: runtimes, checks before a start, containers beside the models."""
