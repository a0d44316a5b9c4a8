"""What is to be run, without running it: studies, searches, stages and their graph, and what they cost in FLOPs."""
