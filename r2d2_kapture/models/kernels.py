"""Whether kernels of the package, which are written in Triton, run on a GPU."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import torch


def kernels_work(device: torch.device, are_right: Callable[[], bool]) -> bool:
    """Whether kernels compile and are right there: Triton needs a C compiler, say.

    Args:
        device: a GPU.
        are_right: runs them there, and compares what they give.
    """
    if torch.version.cuda is None or torch.cuda.get_device_capability(device) < (8, 0):
        return False
    import triton

    try:
        return are_right()
    except (
        OSError,
        RuntimeError,
        subprocess.CalledProcessError,
        triton.TritonError,  # of its compiler
    ):
        return False
