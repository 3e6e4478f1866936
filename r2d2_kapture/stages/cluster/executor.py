"""Who runs a stage: this process, or workers of Ray that share its items."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, Protocol

from r2d2_kapture.config.executor import RAY, ExecutorConfig
from r2d2_kapture.stages.cluster.pool import RayPool
from r2d2_kapture.stages.cluster.slices_on_ray import RayExecutor
from r2d2_kapture.types import Report

P = ParamSpec("P")


class Executor(Protocol):
    """Runs a stage that makes slices."""

    def __call__(
        self, run: Callable[P, Report], *args: P.args, **kwargs: P.kwargs
    ) -> Report:
        """The report of ``run`` with these arguments, and the errors that it raises."""


def here(run: Callable[P, Report], *args: P.args, **kwargs: P.kwargs) -> Report:
    """Run a stage in this process."""
    return run(*args, **kwargs)


@contextmanager
def open_executor(config: ExecutorConfig) -> Iterator[Executor]:
    """Give what runs stages; workers end with the block.

    Raises:
        ConfigError: Ray is not installed.
    """
    if config.executor != RAY:
        yield here
        return
    with RayPool(config) as pool:
        yield RayExecutor(pool=pool)
