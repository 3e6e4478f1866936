"""The worker: an actor of Ray that makes slices, one after another."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import os
import pickle
import platform
import time
import traceback
from typing import Any

import r2d2_kapture
from r2d2_kapture.errors import ConfigError, R2D2KaptureError
from r2d2_kapture.stages.cluster.messages import Place, Task
from r2d2_kapture.types import Report

EXPECTED = (R2D2KaptureError, OSError, UnicodeError, MemoryError)
"""Errors that say what is wrong, as the commands print them."""
WITNESS_SECONDS = 10.0
"""How long a file system may take to show a file to other machines."""


class StageWorker:
    """Makes slices by the stage's own run; what it loads stays for the next slice.

    ``done`` is called while ``run`` works, in another thread.
    """

    def __init__(self) -> None:
        self._done = 0
        self._key = ""
        self._task: Task | None = None

    def look(self, place: Place) -> tuple[str, str, int]:
        """Go where the run is.

        Returns:
            Why that is impossible, else an empty text; the machine, and the process.
        """
        return self._missing(place), platform.node(), os.getpid()

    def _missing(self, place: Place) -> str:
        here, ours = platform.node(), r2d2_kapture.__version__
        if ours != place.version:
            return (
                f"found r2d2_kapture {ours} on {here}, expected {place.version}; "
                "install the same version on all machines"
            )
        try:
            os.chdir(place.folder)
        except OSError:
            return _unseen(place.folder, here)
        end = time.monotonic() + WITNESS_SECONDS
        while not os.path.exists(place.witness):
            if time.monotonic() > end:
                return _unseen(os.path.dirname(place.witness), here)
            time.sleep(0.2)
        return ""

    def run(self, key: str, task: bytes, part: str, cpus: int) -> bytes:
        """Make a slice.

        Args:
            key: of the task.
            task: pickled.
            part: ``i/n``.
            cpus: of the worker.

        Returns:
            The report, or the error that the stage raised, pickled.
        """
        self._done = 0
        try:
            return pickle.dumps(self._make(key, task, part, cpus))
        except EXPECTED as error:
            return pickle.dumps(error)
        except Exception:  # a defect, which the run raises again
            return pickle.dumps(RuntimeError(traceback.format_exc()))

    def done(self) -> int:
        """The items that are finished of the slice being made."""
        return self._done

    def _make(self, key: str, task: bytes, part: str, cpus: int) -> Report:
        import torch  # after Ray has chosen the GPUs

        torch.set_num_threads(cpus)
        if self._task is None or key != self._key:
            self._task, self._key = None, key
            self._task = _load(task)
        known = self._task
        options = dataclasses.replace(
            known.options, workers=cpus, progress=False, on_progress=self._count
        )
        return known.run(
            *known.settings, **known.arguments, slice=part, options=options
        )

    def _count(self, count: int) -> None:
        self._done += count


def _load(pickled: bytes) -> Task:
    """A task whose models and tables of datasets are loaded."""
    try:
        task: Task = pickle.loads(pickled)
    except ImportError as error:
        raise ConfigError(
            f"{platform.node()}: {error}; install the same packages on all machines"
        ) from error
    from r2d2_kapture.io.kapture.dataset import open_dataset

    opened: dict[str, Any] = dict(task.arguments)
    for name, parameter in inspect.signature(task.run).parameters.items():
        if parameter.annotation == "DatasetOrPath":
            opened[name] = open_dataset(opened[name])
        elif parameter.annotation == "BuildMatcher":
            opened[name] = functools.cache(parameter.default)
    return dataclasses.replace(task, arguments=opened)


def _unseen(folder: str, machine: str) -> str:
    return (
        f"found no {folder} on {machine}, expected a file system that all machines "
        "share, at the same place"
    )
