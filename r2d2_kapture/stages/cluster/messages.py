"""What a run, the process that it keeps Ray in, and workers send each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from r2d2_kapture.config.executor import ExecutorConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.config.slices import Slice
from r2d2_kapture.types import Report


@dataclass(frozen=True, kw_only=True)
class Task:
    """A stage whose slices are made; workers read it once.

    Attributes:
        run: of the stage.
        settings: its positional arguments.
        arguments: its other arguments, without the slice.
        options: how to run.
    """

    run: Callable[..., Report]
    settings: Sequence[Any]
    arguments: Mapping[str, Any]
    options: RunOptions


@dataclass(frozen=True, kw_only=True)
class Place:
    """What a worker has to find where it runs.

    Attributes:
        version: of this package.
        folder: that relative paths are relative to.
        witness: a file in the folder of the slices.
    """

    version: str
    folder: str
    witness: str


@dataclass(frozen=True, kw_only=True)
class Opening:
    """The first message of a run: which Ray.

    Attributes:
        config: address and workers.
        scratch: folder of a Ray on this machine, which ends with the run.
    """

    config: ExecutorConfig
    scratch: str


@dataclass(frozen=True, kw_only=True)
class Job:
    """Slices to make.

    Attributes:
        key: of the task, by which workers know it.
        task: pickled.
        parts: the slices.
        workers: how many make them.
        gpus: of a worker.
        place: of the workers.
    """

    key: str
    task: bytes
    parts: tuple[Slice, ...]
    workers: int
    gpus: float
    place: Place


@dataclass(frozen=True, kw_only=True)
class Ready:
    """Ray is there.

    Attributes:
        machines: numbers of processor cores and GPUs of each.
    """

    machines: Sequence[tuple[float, float]]

    def room(self, cpus: float, gpus: float) -> int:
        """For so many workers of so many cores and GPUs."""
        return sum(
            int(min(has_cpus // cpus, has_gpus // gpus if gpus else has_cpus // cpus))
            for has_cpus, has_gpus in self.machines
        )


@dataclass(frozen=True, kw_only=True)
class Running:
    """Numbers of items that are finished in slices being made."""

    done: Mapping[Slice, int]


@dataclass(frozen=True, kw_only=True)
class Made:
    """A slice is finished.

    Attributes:
        part: the slice.
        outcome: pickled, the report or the error that the stage raised.
    """

    part: Slice
    outcome: bytes


@dataclass(frozen=True, kw_only=True)
class Ended:
    """All slices are made.

    Attributes:
        workers: that made them.
        retries: slices begun again because a worker was lost.
    """

    workers: int
    retries: int


@dataclass(frozen=True, kw_only=True)
class Refused:
    """Ray, or a worker, is not as the run needs it.

    Attributes:
        reason: one line.
        by_token: whether the cluster asks for a token.
    """

    reason: str
    by_token: bool = False


@dataclass(frozen=True, kw_only=True)
class Lost:
    """The cluster, or workers again and again, were lost: one line."""

    reason: str


Event = Ready | Running | Made | Ended | Refused | Lost
