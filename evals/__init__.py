"""Measures models under a pinned protocol: BrierLM and its standard error for anything that can be sampled."""
