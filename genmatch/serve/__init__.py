"""The live page: text that is written before your eyes, processes side by side, reports of comparisons.

    browser  --JSON-->  app  --one worker thread a job-->  gm.stream  --a line of JSON for each time of the grid-->  browser

Everything is served from this folder; nothing is fetched from elsewhere, and nothing but text nodes is made of text. What a seed gives
here is what `gm.sample` gives with it.
"""

from __future__ import annotations

from genmatch.serve.app import create_app
from genmatch.serve.limits import Limits

__all__ = ["Limits", "create_app"]
