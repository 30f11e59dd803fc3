"""A few of the random cases of tests/fuzz.py, and cases that it must catch."""

import time
import warnings

import pytest

import genmatch as gm
from tests import fuzz


@pytest.mark.parametrize(("kind", "cases"), [("api", 120), ("command line", 40)])
def test_random_calls_end_well_or_with_a_reason(kind, cases):
    counts, failures = fuzz.run(kind, cases, seed=7, seconds=25)
    assert not failures, failures
    assert counts["well"]
    assert counts["refused"]


def crash(draw, where):
    raise RuntimeError("shape mismatch")


def storm(draw, where):
    for i in range(fuzz.STORM + 1):
        warnings.warn(f"wind {i}", stacklevel=1)


def hang(draw, where):
    time.sleep(5)


def silence(draw, where):
    raise gm.GenmatchError


@pytest.mark.parametrize("bad", [crash, storm, hang, silence])
def test_what_is_wrong_is_caught(bad, monkeypatch):
    monkeypatch.setitem(fuzz.KINDS, "bad", bad)
    monkeypatch.setattr(fuzz, "PATIENCE", 1)
    counts, failures = fuzz.run("bad", 1, seed=0)
    assert counts["wrong"] >= 1
    assert len(failures) == 1
