"""What a stage is, which stages an experiment needs, and what each kind of stage does."""
