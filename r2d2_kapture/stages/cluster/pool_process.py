"""The process that Ray is in: it hands out slices to workers, and replaces lost ones.

    python -m r2d2_kapture.stages.cluster.pool_process FILE_DESCRIPTOR

serves the run at the other end of a connection, see messages.py, and ends with it.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from queue import Queue
from typing import Any

import ray
from ray.exceptions import RayError

from r2d2_kapture.config.executor import ExecutorConfig
from r2d2_kapture.config.slices import Slice
from r2d2_kapture.stages.cluster.joining import (
    Head,
    RefusedError,
    TokenRefusedError,
    join,
    machines,
    one_line,
)
from r2d2_kapture.stages.cluster.messages import (
    Ended,
    Event,
    Job,
    Lost,
    Made,
    Opening,
    Ready,
    Refused,
    Running,
)
from r2d2_kapture.stages.cluster.scratch import remove_scratch
from r2d2_kapture.stages.cluster.worker import StageWorker
from r2d2_kapture.types import counted

LOOK_SECONDS = 0.5
"""Between two looks at the workers."""
START_SECONDS = 600.0
"""How long a cluster that grows may take to have the first worker."""
END_SECONDS = 8.0
TRIES = 3
"""Of a slice, each by another worker."""
PROGRESS = "progress"


class LostError(Exception):
    """The cluster is lost, or a slice has lost too many workers."""


def main() -> None:
    """Serve a run, then end Ray, this process and those it began."""
    connection = Connection(int(sys.argv[1]))
    opening: Opening = connection.recv()
    jobs: Queue[Job | None] = Queue()
    listening = threading.Thread(
        target=_listen, args=(connection, jobs, opening), daemon=True
    )
    listening.start()
    with suppress(OSError):  # the run has ended
        _serve(connection, jobs, opening)
        listening.join()
    with suppress(Exception):  # of a Ray that is lost
        # Ray would end a process of which another thread uses it, and leave its folder
        ray.shutdown()
    _end(opening)


def _serve(connection: Connection, jobs: Queue[Job | None], opening: Opening) -> None:
    """Do jobs until the run ends.

    Raises:
        OSError: it has ended.
    """
    try:
        join(opening)
        pool = Pool(opening.config)
        connection.send(Ready(machines=machines()))
        while job := jobs.get():
            for event in pool.work(job):
                connection.send(event)
    except RefusedError as error:
        by_token = isinstance(error, TokenRefusedError)
        connection.send(Refused(reason=str(error), by_token=by_token))
    except OSError:
        raise
    except Exception as error:  # of Ray, which raises what it likes
        connection.send(Lost(reason=one_line(error)))
        _end(opening)


def _listen(connection: Connection, jobs: Queue[Job | None], opening: Opening) -> None:
    """Take jobs until the run ends, and see to it that this process ends then."""
    with suppress(EOFError, OSError):
        while True:
            jobs.put(connection.recv())
    jobs.put(None)
    threading.Thread(target=_end_late, args=(opening,), daemon=True).start()


def _end_late(opening: Opening) -> None:
    time.sleep(END_SECONDS)
    _end(opening)


def _end(opening: Opening) -> None:
    remove_scratch(Path(opening.scratch))
    os.killpg(0, signal.SIGKILL)


class Pool:
    """Workers, and what they do.

    Args:
        config: of which kind.
    """

    def __init__(self, config: ExecutorConfig) -> None:
        self._config = config
        self._gpus = 0.0
        self._workers: list[Any] = []
        self._processes: dict[Any, tuple[str, int]] = {}
        self._head = Head(config.address)

    def work(self, job: Job) -> Iterator[Event]:
        """Make the slices of a job.

        Raises:
            LostError: the head is lost, or a slice has lost too many workers.
            RefusedError: a worker cannot work where it is.
        """
        self._resize(min(job.workers, len(job.parts)), job.gpus)
        work = _Work(job)
        for worker in self._workers:
            work.look(worker)
        while not work.is_done:
            work.hand_out(self._config.cpus_per_worker)
            ready, _ = ray.wait([*work.looking, *work.running], timeout=LOOK_SECONDS)
            for call in ready:
                worker = work.worker(call)
                try:
                    value = ray.get(call)
                except RayError as error:
                    self._replace(worker, work, call, error)
                    continue
                made = work.take(call, value)
                if made is None:
                    self._processes[worker] = value[1:]
                else:
                    yield made
            yield Running(done=work.progress())
            work.check_start(self._config)
            if self._head.is_lost():
                self._kill_processes()
                raise LostError("the head of the cluster does not answer")
        lasting = len(work.took_part) - work.retries  # others took their places
        yield Ended(workers=lasting, retries=work.retries)

    def _resize(self, count: int, gpus: float) -> None:
        if gpus != self._gpus:
            for worker in self._workers:
                ray.kill(worker)
            self._workers, self._gpus = [], gpus
        while len(self._workers) < count:
            self._workers.append(self._begin())

    def _begin(self) -> Any:
        actor: Any = ray.remote(
            num_cpus=self._config.cpus_per_worker,
            num_gpus=self._gpus,
            concurrency_groups={PROGRESS: 1},
            scheduling_strategy="SPREAD",
        )(StageWorker)
        return actor.remote()

    def _replace(self, worker: Any, work: _Work, call: Any, error: RayError) -> None:
        """Begin another worker for one that is lost, and its slice again."""
        work.lose(call, error)
        with suppress(RayError):
            ray.kill(worker)
        self._processes.pop(worker, None)
        self._workers.remove(worker)
        self._workers.append(self._begin())
        work.look(self._workers[-1])

    def _kill_processes(self) -> None:
        """End the workers of this machine, which Ray cannot any more."""
        for machine, process in self._processes.values():
            if machine == socket.gethostname():
                with suppress(OSError):
                    os.kill(process, signal.SIGKILL)


class _Work:
    """The state of a job.

    Args:
        job: to do.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._task = ray.put(job.task)
        self._waiting = deque(job.parts)
        self._idle: list[Any] = []
        self._tries: Counter[Slice | None] = Counter()
        self._began = time.monotonic()
        self.looking: dict[Any, Any] = {}
        self.running: dict[Any, tuple[Any, Slice]] = {}
        self.took_part: set[Any] = set()
        self.retries = 0

    @property
    def is_done(self) -> bool:
        return not (self._waiting or self.running)

    def worker(self, call: Any) -> Any:
        """That a call is to."""
        return self.running[call][0] if call in self.running else self.looking[call]

    def look(self, worker: Any) -> None:
        """Have a worker look around before it gets a slice."""
        self.looking[worker.look.remote(self._job.place)] = worker

    def hand_out(self, cpus: int) -> None:
        """Give each idle worker one slice; none waits in the queue of a worker."""
        while self._idle and self._waiting:
            worker, part = self._idle.pop(), self._waiting.popleft()
            call = worker.run.remote(self._job.key, self._task, str(part), cpus)
            self.running[call] = worker, part
            self.took_part.add(worker)

    def take(self, call: Any, value: Any) -> Made | None:
        """What a call gave: a slice, or None for a look around.

        Raises:
            RefusedError: the worker cannot work where it is.
        """
        if call in self.running:
            worker, part = self.running.pop(call)
            self._idle.append(worker)
            return Made(part=part, outcome=value)
        self._idle.append(self.looking.pop(call))
        if value[0]:
            raise RefusedError(f"--executor ray: {value[0]}")
        return None

    def lose(self, call: Any, error: RayError) -> None:
        """Put the slice of a lost worker first in the queue.

        Raises:
            LostError: it was lost too often.
            RefusedError: workers cannot begin.
        """
        text = str(error)
        if "ModuleNotFoundError" in text:
            missing = text[text.index("ModuleNotFoundError") :].partition("\n")[0]
            raise RefusedError(
                f"--executor ray: {missing}, on a machine of the cluster; install the "
                "same packages on all"
            )
        _, part = self.running.pop(call, (self.looking.pop(call, None), None))
        self._tries[part] += 1
        if self._tries[part] >= TRIES:
            what = "workers could not begin" if part is None else f"slice {part}"
            raise LostError(
                f"{what}: {TRIES} workers ended, the last one by {one_line(error)}"
            )
        if part is not None:
            self.retries += 1
            self._waiting.appendleft(part)

    def progress(self) -> dict[Slice, int]:
        """The finished items of the slices being made, of workers that answer."""
        asked = {
            worker.done.options(concurrency_group=PROGRESS).remote(): part
            for worker, part in self.running.values()
        }
        if not asked:
            return {}
        done, _ = ray.wait([*asked], num_returns=len(asked), timeout=LOOK_SECONDS)
        counts = {}
        for call in done:
            with suppress(RayError):
                counts[asked[call]] = ray.get(call)
        return counts

    def check_start(self, config: ExecutorConfig) -> None:
        """Refuse to wait for a first worker for ever.

        Raises:
            RefusedError: none has begun.
        """
        late = time.monotonic() > self._began + START_SECONDS
        if late and not (self._idle or self.running or self.took_part):
            raise RefusedError(
                f"--address {config.address}: found no room for a worker of "
                f"{counted(config.cpus_per_worker, 'core')} and {self._job.gpus:g} "
                f"GPUs in {START_SECONDS / 60:.0f} minutes; the cluster has "
                f"{_listed(ray.cluster_resources())}"
            )


def _listed(resources: dict[str, float]) -> str:
    return ", ".join(f"{resources.get(name, 0):g} {name}s" for name in ("CPU", "GPU"))


if __name__ == "__main__":
    main()
