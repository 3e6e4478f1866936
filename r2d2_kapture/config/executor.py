"""Where the items of a stage are processed: in this process, or by workers of Ray."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from r2d2_kapture.config.checks import Checked, bounded, require

HERE, RAY = "process", "ray"
LOCAL, AUTO = "local", "auto"
"""Addresses that are no host."""
LAST_PORT = 65535


@dataclass(frozen=True, kw_only=True)
class ExecutorConfig(Checked):
    """Who processes the items, which does not affect results.

    Attributes:
        executor: ``process`` is this one; ``ray`` shares the items among workers of
            Ray, which write to the same output, see docs/cluster.md.
        address: ``local`` starts Ray on this machine for the time of the run; ``auto``
            joins the cluster that this machine is part of; or HOST or HOST:PORT of the
            head of a cluster (port 6379).
        ray_workers: number of workers; by default as many as the processors (and GPUs)
            of all machines suffice for.
        cpus_per_worker: processor cores of a worker, its ``--workers``.
        gpus_per_worker: GPUs of a worker, such as 0.5 for two workers a GPU; for
            extraction and matching, other stages have none.
    """

    executor: Literal["process", "ray"] = "process"
    address: str = LOCAL
    ray_workers: int | None = bounded(None, at_least=1)
    cpus_per_worker: int = bounded(1, at_least=1)
    gpus_per_worker: float = bounded(0.0, at_least=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        whole = float(self.gpus_per_worker).is_integer()
        require(
            self.gpus_per_worker < 1 or whole,
            f"--gpus-per-worker: found {self.gpus_per_worker}, expected a part of one "
            "or a whole number",
        )
        require(
            bool(re.fullmatch(r"[\w.-]+(:\d{1,5})?", self.address))
            and int(self.address.partition(":")[2] or 0) <= LAST_PORT,
            f"--address: found '{self.address}', expected local, auto, HOST or "
            "HOST:PORT",
        )
        for name in ("address", "ray_workers", "cpus_per_worker", "gpus_per_worker"):
            value = getattr(self, name)
            require(
                self.executor == RAY or value == getattr(ExecutorConfig, name),
                f"--{name.replace('_', '-')} {value}: found --executor "
                f"{self.executor}, expected --executor {RAY}",
            )
