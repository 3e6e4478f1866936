"""The process that a run keeps Ray in.

Ray ends the process whose cluster is lost, and writes to its terminal: a run starts it
in a process of its own, which ends with the run, however that ends.
"""

from __future__ import annotations

import os
import pickle
import secrets
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import suppress
from multiprocessing import Pipe
from pathlib import Path
from types import TracebackType
from typing import Self

from r2d2_kapture.config.checks import require
from r2d2_kapture.config.executor import LOCAL, RAY, ExecutorConfig
from r2d2_kapture.config.extras import import_extra
from r2d2_kapture.errors import ConfigError, LostWorkersError
from r2d2_kapture.stages.cluster.messages import (
    Ended,
    Event,
    Job,
    Lost,
    Opening,
    Ready,
    Refused,
)
from r2d2_kapture.stages.cluster.scratch import make_scratch, remove_scratch

MODULE = "r2d2_kapture.stages.cluster.pool_process"
END_SECONDS = 12.0
"""What Ray gets to end by itself."""
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DISABLE_IMPORT_WARNING": "1"}
"""Ray reports to nobody."""
AUTH_MODE, AUTH_TOKEN = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"
WITH_TOKEN = {AUTH_MODE: "token"}
JOINING = {"RAY_NUM_REDIS_GET_RETRIES": "5"}
"""Seconds in which a head that is there lets others join."""


class TokenError(ConfigError):
    """A cluster has a token, which has to be given."""


class RayPool:
    """Workers of Ray; nothing starts before they are needed.

    Args:
        config: which.

    Raises:
        ConfigError: Ray is not installed.

    Attributes:
        scratch: folder of a Ray on this machine, while it runs.
    """

    def __init__(self, config: ExecutorConfig) -> None:
        import_extra("ray", "ray", f"--executor {RAY}")
        self.config = config
        self._process: subprocess.Popen[bytes] | None = None
        self.scratch: Path | None = None
        self._ready = Ready(machines=())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def start(self, gpus: float) -> int:
        """Start or join Ray, unless that is done.

        Args:
            gpus: of a worker.

        Returns:
            The number of workers: as asked for, or as there is room for.

        Raises:
            ConfigError: it cannot be joined, or this machine has no such GPU.
            LostWorkersError: it ended.
        """
        if self._process is None:
            try:
                self._ready = self._open()
            except BaseException:
                self.close()
                raise
        config = self.config
        room = self._ready.room(config.cpus_per_worker, gpus)
        require(
            room > 0 or config.address != LOCAL,  # others may grow
            f"--gpus-per-worker {gpus:g}: found no such GPUs on this machine",
        )
        return config.ray_workers or max(room, 1)

    def _open(self) -> Ready:
        local = self.config.address == LOCAL
        try:
            # a Ray of a run has its own, or it would leave one in the home folder
            token = {AUTH_TOKEN: secrets.token_hex(32)} if local else {}
            return self._begin(WITH_TOKEN | token if local else JOINING)
        except TokenError:
            if AUTH_MODE in os.environ:
                raise
        self.close()
        return self._begin(WITH_TOKEN)  # that of clusters in the home folder

    def _begin(self, environment: dict[str, str]) -> Ready:
        """Start the process that joins Ray."""
        self.scratch = scratch = make_scratch()
        self._connection, theirs = Pipe()
        modules = os.pathsep.join(path for path in sys.path if path)
        with theirs, open(scratch / "log.txt", "wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", MODULE, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment | os.environ | QUIET | {"PYTHONPATH": modules},
                start_new_session=True,  # Ctrl-C is for the run, which ends it
            )
        self._send(Opening(config=self.config, scratch=str(scratch)))
        event = self._receive()
        return event if isinstance(event, Ready) else Ready(machines=())

    def work(self, job: Job) -> Generator[Event, None, None]:
        """Make slices, once it is started.

        Yields:
            What happens, up to the end; if it is closed before, workers stop.

        Raises:
            ConfigError: a worker cannot work where it is.
            LostWorkersError: Ray was lost, or a slice lost its worker too often.
        """
        event: Event | None = None
        try:
            self._send(job)
            while not isinstance(event, Ended):
                event = self._receive()
                yield event
        finally:
            if not isinstance(event, Ended):
                self.close()

    def close(self) -> None:
        """End the workers, and a Ray that was started for them."""
        process, self._process = self._process, None
        if process is None:
            return
        self._connection.close()
        with suppress(subprocess.TimeoutExpired):
            process.wait(END_SECONDS)
        with suppress(ProcessLookupError, PermissionError):
            # a Ray of this run is in its group
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if self.scratch is not None:
            remove_scratch(self.scratch)

    def _send(self, message: Opening | Job) -> None:
        try:
            self._connection.send(message)
        except OSError as error:
            raise self._lost("its process ended") from error

    def _receive(self) -> Event:
        try:
            event: Event = self._connection.recv()
        except (EOFError, OSError, pickle.UnpicklingError) as error:
            raise self._lost("its process ended") from error
        if isinstance(event, Refused):
            raise (TokenError if event.by_token else ConfigError)(event.reason)
        if isinstance(event, Lost):
            raise self._lost(event.reason)
        return event

    def _lost(self, reason: str) -> LostWorkersError:
        place = self.config.address
        return LostWorkersError(
            f"--address {place}: lost Ray: {reason}; finished slices are kept: run the "
            "same command again to resume"
        )
