"""Families of models: what a model of each costs in closed form, without torch, and the name of its network.

:data:`calm_bench.family_registry.FAMILIES` has them by name; :mod:`calm_bench.lm` has the networks.
"""
