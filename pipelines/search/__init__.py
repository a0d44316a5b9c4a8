"""Asks Optuna for trials, runs their stages, tells it what came of them."""
