"""One thread for each test process: several of them on a few cores would wait for each other's threads most of the time."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported; subprocesses inherit it
