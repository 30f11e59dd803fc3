"""`genmatch compare`: one data set, every process family that fits, one report."""

from genmatch.compare.runner import Comparison, compare
from genmatch.settings import Plan

__all__ = ["Comparison", "Plan", "compare"]
