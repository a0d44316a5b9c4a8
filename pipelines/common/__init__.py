"""Text for people: redacted secrets, numbers, durations, and the canvas of pictures."""
