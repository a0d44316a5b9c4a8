"""What a study is doing, for whoever waits for it: beside the run, and from another terminal."""
