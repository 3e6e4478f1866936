"""Runs commands and measures them; describes the machine."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from r2d2_kapture.core.processor import this_processor
from r2d2_kapture.io.outputs.manifest import package_versions

LIMITS = {
    isa: {
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": isa.upper(),
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "OV_CPU_MAX_ISA": isa.upper(),
    }
    for isa in ("avx2", "avx2_vnni")
}
"""What ATen, oneDNN (of torch and of OpenVINO), MKL and OpenVINO read of the
environment, by the instruction set that they are kept to."""
BOUND = {"openvino": True, "onnxruntime": False}
"""Engines beside torch, and whether a limit of the instruction set binds them:
onnxruntime asks the processor alone."""
INSTRUCTIONS = {
    "avx2": "AVX2",
    "avx_vnni": "AVX-VNNI",
    "avx512f": "AVX-512",
    "avx512_vnni": "AVX-512 VNNI",
    "avx512_bf16": "AVX-512 BF16",
    "amx_tile": "AMX",
    "asimd": "NEON",
}
"""Flags of Linux, and what they are called."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Wall time in seconds and peak resident memory in GiB of one command.

    On a busy machine, the processor time of all cores is more reliable; of this,
    system_seconds are the kernel's.
    """

    seconds: float
    cpu_seconds: float
    peak_gib: float
    system_seconds: float = 0.0


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
        system_seconds=usage.ru_stime,
    )


def precisions() -> list[str]:
    """The precision that --precision auto selects on this processor."""
    return ["fp32", "bf16"] if this_processor().runs_bf16 else ["fp32"]


def engines(bound: bool) -> list[str]:
    """The engines beside torch that are installed.

    Args:
        bound: only those that a limit of the instruction set binds.
    """
    return [
        name
        for name, obeys in BOUND.items()
        if (obeys or not bound) and find_spec(name) and find_spec("onnx")
    ]


def machine() -> str:
    """Processor, its instructions and their limit, cores and versions, in lines."""
    model, flags = platform.processor() or platform.machine(), set[str]()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = [line.partition(":") for line in cpuinfo.read_text().splitlines()]
        values = {name.strip(): value.strip() for name, _, value in lines}
        model = values.get("model name", model)
        flags = {*values.get("flags", values.get("Features", "")).split()}
    found = ", ".join(name for flag, name in INSTRUCTIONS.items() if flag in flags)
    limits = {name: os.environ.get(name) for name in LIMITS["avx2"]}
    kept = " ".join(f"{name}={value}" for name, value in limits.items() if value)
    names = [name for name in BOUND if find_spec(name)]
    versions = package_versions() | {name: metadata.version(name) for name in names}
    return "\n".join(
        [
            f"{model}, {os.cpu_count()} cores; {found or this_processor().name}",
            *([f"kept to {kept} (onnxruntime obeys none)"] if kept else []),
            ", ".join(f"{name} {version}" for name, version in versions.items()),
        ]
    )
