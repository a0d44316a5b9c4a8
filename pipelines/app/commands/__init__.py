"""The subcommands of ``calm-bench``: what they ask for and what they print."""
