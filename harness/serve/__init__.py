"""From a target to a service that answers: choice of runtime, checks before a start, sidecars beside the models."""
