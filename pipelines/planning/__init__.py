"""What a study will do and what it will cost, before anything is launched."""
