"""Runs stages: in this process or on Ray, each once, after its inputs, again after a failure that may pass."""
