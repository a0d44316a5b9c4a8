"""Runs experiments: stages on Ray or in this process, searches by Optuna, tracking in MLflow, the leaderboard."""
