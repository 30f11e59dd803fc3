"""One thread for each test process, and one seed for each test."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: the threads of several processes would wait for each other

import pytest
import torch


@pytest.fixture(autouse=True)
def one_seed():
    """A network that a test makes is the same alone, after other tests, and on each worker."""
    torch.manual_seed(0)
