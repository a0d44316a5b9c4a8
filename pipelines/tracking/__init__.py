"""MLflow: what the store holds, sent there."""
