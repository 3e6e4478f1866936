"""Ray on this machine or on a cluster, and whether its head is still there."""

from __future__ import annotations

import os
import socket
import time
from typing import Any

import ray

from r2d2_kapture.config.executor import AUTO, LOCAL, ExecutorConfig
from r2d2_kapture.stages.cluster.messages import Opening

HEAD_SECONDS = 20.0
"""How long the head of a cluster may be away; Ray itself gives up after 60."""
CONNECT_SECONDS = 5.0
PORT = 6379
STORE_BYTES = 256 * 2**20
"""Of objects in memory that workers share: models, until they are loaded."""


class RefusedError(Exception):
    """Ray cannot be joined, or a worker cannot work where it is."""


class TokenRefusedError(RefusedError):
    """A cluster asks for its token."""


def join(opening: Opening) -> None:
    """Start Ray on this machine, or join a cluster.

    Raises:
        RefusedError: there is none, or not as it should be.
    """
    config = opening.config
    quiet: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": "error",
        "configure_logging": False,
    }
    try:
        if config.address == LOCAL:
            workers = config.ray_workers or _local_workers(config)
            ray.init(
                address=LOCAL,
                num_cpus=workers * config.cpus_per_worker,
                include_dashboard=False,
                object_store_memory=STORE_BYTES,
                _temp_dir=opening.scratch,
                **quiet,
            )
        else:
            ray.init(address=_address(config.address), **quiet)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        if "AuthenticationError" in str(error.__cause__):
            raise TokenRefusedError(
                f"--address {config.address}: found no token of that cluster, or "
                "another one; copy ~/.ray/auth_token of its head to all machines"
            ) from error
        raise RefusedError(
            f"--address {config.address}: {one_line(error)}; start a cluster by ray "
            "start --head, have this machine join it by ray start --address HOST:PORT, "
            f"or give --address {LOCAL}"
        ) from error


def _address(text: str) -> str:
    """Of the head, where one listens.

    Raises:
        RefusedError: none does.
    """
    if text == AUTO:
        return text
    host, _, port = text.partition(":")
    try:
        with socket.create_connection((host, int(port or PORT)), CONNECT_SECONDS):
            return f"{host}:{port or PORT}"
    except (OSError, ValueError) as error:
        raise RefusedError(
            f"--address {text}: found no Ray there ({error}), expected HOST or "
            "HOST:PORT of the head of a cluster that was started by ray start --head"
        ) from error


def _local_workers(config: ExecutorConfig) -> int:
    return max((os.cpu_count() or 1) // config.cpus_per_worker, 1)


def machines() -> list[tuple[float, float]]:
    """Numbers of processor cores and GPUs of each machine."""
    return [
        (node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0))
        for node in ray.nodes()
        if node["Alive"]
    ]


class Head:
    """Watches the head of the cluster: Ray ends this process if it stays away.

    Args:
        address: as asked for.
    """

    def __init__(self, address: str) -> None:
        gcs = ray.get_runtime_context().gcs_address
        host, _, port = gcs.rpartition(":")
        self._at = host.strip("[]"), int(port)
        self._patience = 0.0 if address == LOCAL else HEAD_SECONDS
        self._seen = time.monotonic()

    def is_lost(self) -> bool:
        """Whether it has not answered for long."""
        try:
            socket.create_connection(self._at, CONNECT_SECONDS).close()
            self._seen = time.monotonic()
            return False
        except OSError:
            return time.monotonic() > self._seen + self._patience


def one_line(error: BaseException) -> str:
    """The first line of a message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__
