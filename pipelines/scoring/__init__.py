"""Trained models of any origin: find them, score them, probe them, let them write."""
