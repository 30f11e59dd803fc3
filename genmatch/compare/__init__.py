"""`genmatch compare`: one data set, every process family that fits, one report."""

from genmatch.compare.runner import Comparison, Plan, compare

__all__ = ["Comparison", "Plan", "compare"]
