"""Stages on several machines: their slices are made by workers of Ray."""

from r2d2_kapture.stages.cluster.executor import Executor, here, open_executor

__all__ = ["Executor", "here", "open_executor"]
