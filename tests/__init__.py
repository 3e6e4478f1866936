"""Tests; torch computes in one thread, which `make test` gives to each core."""

import os

# before torch is imported; networks as small as these are slower in several threads
os.environ["OMP_NUM_THREADS"] = "1"
