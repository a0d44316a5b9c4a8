"""Studies: trials from the search, stages from the trials, results back to the search."""
