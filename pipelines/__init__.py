"""Runs experiments: stages on Ray or in this process, searches by Optuna, the mirror in MLflow, the leaderboard."""
