"""The command `calm-bench`: where the other rooms are put together."""
