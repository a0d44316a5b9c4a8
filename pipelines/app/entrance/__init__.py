"""The Python entrance: what ``import calm_bench`` offers to scripts and notebooks."""
