"""Rows of scored models and the statistics between them; renders nothing."""
