"""From results to rows, ranks, fronts and pictures."""
