r"""Recipes for fewer steps: a trained model makes data from which `gm.train`, as it is, learns one that needs fewer network calls.

    reflow     pairs (x0, x1) of a flow, or a chain whose noise differs from draw to draw: a new coupling, with straighter paths
    distill    pairs (x1, code) of a masked chain: a network that is told the code draws tokens together that depend on each other

Neither needs a loop of its own: the one makes a coupling, the other a condition.
"""

from genmatch.recipes.distillation import distill
from genmatch.recipes.straightening import reflow, straightness

__all__ = ["distill", "reflow", "straightness"]
