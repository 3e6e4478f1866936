"""A stage on Ray: its slices are made by workers, and put together by this process."""

from __future__ import annotations

import dataclasses
import os
import pickle
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any, ParamSpec

import r2d2_kapture
from r2d2_kapture.config.checks import require
from r2d2_kapture.config.executor import RAY
from r2d2_kapture.config.slices import ALL, WHOLE, SharedWork, Slice
from r2d2_kapture.io.outputs.lock import exclusive
from r2d2_kapture.io.outputs.pieces import all_slices, slices_in
from r2d2_kapture.io.progress import Progress
from r2d2_kapture.stages.cluster.messages import (
    Ended,
    Event,
    Job,
    Made,
    Place,
    Running,
    Task,
)
from r2d2_kapture.stages.cluster.pool import RayPool
from r2d2_kapture.types import Failure, Report

P = ParamSpec("P")

WITNESS = "witness-"
FEW = 5
"""Items that are not worth the start of Ray."""
SLICES_PER_WORKER = 4
"""Workers are not equally fast, nor are slices equally long."""


class StoppedError(Exception):
    """An item failed, and the run is strict."""


@dataclass(frozen=True, kw_only=True)
class RayExecutor:
    """Runs stages with workers of Ray, see Executor.

    Attributes:
        pool: of the workers.
    """

    pool: RayPool

    def __call__(
        self, run: Callable[P, Report], *args: P.args, **kwargs: P.kwargs
    ) -> Report:
        """The report of a stage.

        Raises:
            R2D2KaptureError: of the stage; or workers, or the cluster, are lost.
        """
        arguments: dict[str, Any] = dict(kwargs)
        slice, options = arguments.pop("slice", WHOLE), arguments.pop("options")
        require(
            slice == WHOLE,
            f"--slice {slice}: found --executor {RAY}, which makes slices of its own; "
            "omit one of them",
        )
        stage: Callable[..., Report] = run
        task = Task(run=stage, settings=args, arguments=arguments, options=options)
        self._refuse_other_devices(args)
        making = SliceMaking(pool=self.pool, task=task)
        options = dataclasses.replace(options, make_slices=making)
        started = time.monotonic()
        try:
            return stage(*args, **arguments, slice=ALL, options=options)
        except StoppedError:
            return making.stopped_report(time.monotonic() - started)

    def _refuse_other_devices(self, settings: Sequence[Any]) -> None:
        """Refuse features computed on GPUs, and said to be computed on this CPU."""
        gpus = self.pool.config.gpus_per_worker
        on_cpu = any(
            one.runtime.device.type == "cpu"
            for one in settings
            if hasattr(one, "runtime")
        )
        require(
            not (gpus and on_cpu),
            f"--gpus-per-worker {gpus:g}: found an extractor on the CPU of this "
            "machine, expected one on a GPU as those of the workers, whose precision "
            "is recorded; omit it, or run on a machine of the cluster that has one: "
            "ray job submit --entrypoint-num-gpus 0.1 -- ...",
        )


@dataclass(kw_only=True)
class SliceMaking:
    """Makes the slices of a stage before they are put together.

    Attributes:
        pool: of workers.
        task: of the stage.
        reports: of slices that are made.
    """

    pool: RayPool
    task: Task
    reports: list[Report] = field(default_factory=list)

    def __call__(self, work: SharedWork) -> Mapping[str, Any]:
        """Make those that are missing; see RunOptions.make_slices."""
        anew, begun = self.task.options.force, work.begun
        lacking = work.items if anew else work.lacking
        if not (lacking or begun):
            return {}
        with _claimed(work):
            few = not begun and lacking < FEW
            count = begun or (2 if few else self._count(work.items))
            parts = all_slices(count) if anew else work.unfinished(count)
            if not parts:
                return {}
            if few:
                for part in parts:
                    self._take(self._make_here(part))
                return {}
            return self._make_on_ray(work, parts)

    def _count(self, items: int) -> int:
        return max(min(SLICES_PER_WORKER * self.pool.start(self._gpus), items), 2)

    @property
    def _gpus(self) -> float:
        """Of a worker: of a stage that has a setting or an extractor for them."""
        settings = self.task.settings
        uses = any(hasattr(one, "gpu") or hasattr(one, "runtime") for one in settings)
        return self.pool.config.gpus_per_worker if uses else 0.0

    def _make_here(self, part: Slice) -> Report:
        task = self.task
        return task.run(
            *task.settings, **task.arguments, slice=str(part), options=task.options
        )

    def _make_on_ray(
        self, work: SharedWork, parts: Sequence[Slice]
    ) -> Mapping[str, Any]:
        task = dataclasses.replace(
            self.task, options=dataclasses.replace(self.task.options, progress=False)
        )
        witness = work.folder / f"{WITNESS}{uuid.uuid4().hex}"
        witness.touch()
        job = Job(
            key=witness.name,
            task=pickle.dumps(task),
            parts=tuple(parts),
            workers=self.pool.start(self._gpus),
            gpus=self._gpus,
            place=Place(
                version=r2d2_kapture.__version__,
                folder=os.getcwd(),
                witness=str(witness.resolve()),
            ),
        )
        sizes = {part: len(part.of(range(work.items))) for part in parts}
        bar = _SliceProgress(
            bar=Progress(
                task.run.__module__.split(".")[2],
                work.unit,
                work.items,
                done=work.items - sum(sizes.values()),
                shown=self.task.options.progress,
            ),
            sizes=sizes,
        )
        with bar.bar, closing(self.pool.work(job)) as events:
            for event in events:
                bar.note(event)
                if isinstance(event, Made):
                    outcome = pickle.loads(event.outcome)
                    if isinstance(outcome, Exception):
                        raise outcome
                    self._take(outcome)
                elif isinstance(event, Ended):
                    return {"workers": event.workers, "retries": event.retries}
        return {}

    def _take(self, report: Report) -> None:
        self.reports.append(report)
        if report.failed and self.task.options.strict:
            raise StoppedError

    def stopped_report(self, seconds: float) -> Report:
        """Of a strict run with an item that failed: of the slices made up to then."""
        failed: dict[str, Failure] = {
            failure.name: failure for one in self.reports for failure in one.failed
        }
        return dataclasses.replace(
            self.reports[-1],
            done=sum(one.done for one in self.reports),
            skipped=sum(one.skipped for one in self.reports),
            failed=tuple(failed.values()),
            seconds=seconds,
            outputs=(),
            summary="",
            details={},
            warnings=(
                "finished slices are kept: run the same command again to resume",
            ),
        )


@dataclass(kw_only=True)
class _SliceProgress:
    """One bar for the slices that workers make.

    Attributes:
        bar: of all items.
        sizes: of the slices.
    """

    bar: Progress
    sizes: Mapping[Slice, int]
    _made: int = 0
    _shown: int = 0

    def note(self, event: Event) -> None:
        """Show what is finished; what a lost worker did is not taken back."""
        done = self._made
        if isinstance(event, Made):
            self._made += self.sizes[event.part]
            done = self._made
        elif isinstance(event, Running):
            done += sum(min(n, self.sizes[part]) for part, n in event.done.items())
        if done > self._shown:
            self.bar.update(done - self._shown)
            self._shown = done


@contextmanager
def _claimed(work: SharedWork) -> Iterator[None]:
    """Lock the folder of slices, and leave none without slices."""
    try:
        with exclusive(work.folder, work.output):
            yield
    finally:
        for witness in work.folder.glob(f"{WITNESS}*"):
            witness.unlink(missing_ok=True)
        if not slices_in(work.folder):
            shutil.rmtree(work.folder, ignore_errors=True)
