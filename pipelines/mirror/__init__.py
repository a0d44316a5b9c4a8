"""MLflow: the mirror of the files, which nothing waits for."""
