-- Run once, when the volume is empty. Optuna and MLflow both keep a table called alembic_version: a database for each.
CREATE DATABASE optuna;
