"""Runs commands and measures them; describes the machine."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from r2d2_kapture.core.processor import this_processor
from r2d2_kapture.io.outputs.manifest import package_versions


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Wall time in seconds and peak resident memory in GiB of one command.

    On a busy machine, the processor time of all cores is more reliable.
    """

    seconds: float
    cpu_seconds: float
    peak_gib: float


def measure(command: Sequence[str]) -> Measurement:
    """Run a command to its end.

    Raises:
        RuntimeError: it failed; its output is in the message.
    """
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    output = process.stdout.read() if process.stdout else b""
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)}: {output.decode(errors='replace')}")
    return Measurement(
        seconds=seconds,
        cpu_seconds=usage.ru_utime + usage.ru_stime,
        peak_gib=usage.ru_maxrss / 2**20,
    )


def precisions() -> list[str]:
    """The precision that --precision auto selects on this processor."""
    return ["fp32", "bf16"] if this_processor().runs_bf16 else ["fp32"]


def machine() -> str:
    """Processor, cores and versions, on one line."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [
            line.partition(":")[2].strip()
            for line in cpuinfo.read_text().splitlines()
            if line.startswith("model name")
        ]
        model = names[0] if names else model
    versions = ", ".join(f"{k} {v}" for k, v in package_versions().items())
    return f"{model}, {os.cpu_count()} cores; {versions}"
