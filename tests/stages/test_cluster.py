"""The scripts of docs/cluster.md, run as a cluster does: by a shell, in processes."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import yaml

from r2d2_kapture.cli import match
from r2d2_kapture.io.kapture.pairs import ImagePair, write_pairs
from r2d2_kapture.io.outputs.finished import FINISHED_NAME
from tests.commands import CHECKOUT
from tests.scenes.contents import files_below
from tests.scenes.kapture_files import write_features
from tests.stages.cluster.toy import running

GUIDE = CHECKOUT / "docs" / "cluster.md"
SBATCH = """#!/bin/bash
# the tasks of an array at once, or one job
while [[ $1 == --* ]]; do
    case $1 in
        --array=1-*) count=${1#--array=1-} ;;
        --export=ALL,*) export "${1#--export=ALL,}" ;;
    esac
    shift
done
if [[ ! $count ]]; then exec bash "$@" >&2; fi
for i in $(seq "$count"); do
    SLURM_ARRAY_TASK_ID=$i SLURM_ARRAY_TASK_COUNT=$count bash "$@" >&2 &
done
wait
echo 17
"""


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", GUIDE.read_text("utf-8"), re.DOTALL)


def write_program(path: Path, text: str) -> None:
    path.write_text(text, "utf-8")
    path.chmod(0o755)


MATCH = f'#!/bin/sh\nexec {sys.executable} -m {match.__name__} --gpu -1 "$@"\n'


def write_inputs(folder: Path) -> None:
    """Features of four images, and a list of all pairs."""
    rng = np.random.default_rng(0)
    names = [f"image {i}.jpg" for i in range(4)]
    rows = {name: rng.normal(size=(9, 16)).astype(np.float32) for name in names}
    write_features(folder / "features", rows)
    pairs = [ImagePair(image1=a, image2=b) for a, b in itertools.combinations(names, 2)]
    write_pairs(folder / "pairs.txt", pairs)


def with_programs(folder: Path, **programs: str) -> dict[str, str]:
    """An environment in which these programs are found first."""
    (folder / "programs").mkdir()
    for name, text in programs.items():
        write_program(folder / "programs" / name, text)
    path = f"{folder / 'programs'}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(CHECKOUT)}


def compare_with_one_run(made: Path) -> None:
    """The matches are those of a run without slices, in the folder at hand."""
    inputs = "--features features --pairs pairs.txt --quiet --gpu -1".split()
    assert match.main([*inputs, "--output", "one"]) == 0
    volatile = ("match_report.json", FINISHED_NAME, ".lock")
    found = files_below(made, volatile)
    assert len(found) > 6
    assert found == files_below(Path("one"), volatile)


def test_a_job_array_makes_what_one_run_makes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_inputs(tmp_path)
    stage, submission, *_ = blocks("bash")
    write_program(tmp_path / "stage.sh", stage)
    environment = with_programs(tmp_path, sbatch=SBATCH, kapture_r2d2_match=MATCH)
    assert "--array=1-8" in submission
    done = subprocess.run(
        ["bash", "-e", "-c", submission.replace("--array=1-8", "--array=1-2")],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "slices: 2" in done.stderr
    monkeypatch.chdir(tmp_path)
    compare_with_one_run(tmp_path / "matches")


RAY = """#!/bin/sh
# ray, with folders and a port of its own; a head alone is a cluster
case "$*" in
    "start --head --port 6379")
        exec {python} -m ray.scripts.scripts start --head --port {port} --num-cpus 2 \\
            --temp-dir {folder} --include-dashboard false --disable-usage-stats ;;
    "start --address HEAD:6379") exec true ;;
esac
"""


def stop_below(folder: str) -> None:
    """Kill what runs in a folder, and remove it, once nothing writes there."""
    while os.path.exists(folder):
        for process in running(folder):
            os.kill(process, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
def test_a_stage_runs_on_a_cluster_of_ray(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray", reason="needs the package ray")
    write_inputs(tmp_path)
    with socket.create_server(("", 0)) as free:
        port = free.getsockname()[1]
    folder = tempfile.mkdtemp(prefix="r2d2-ray-test-", dir="/tmp")
    text = RAY.format(python=sys.executable, port=port, folder=folder)
    environment = with_programs(tmp_path, ray=text, kapture_r2d2_match=MATCH)
    environment |= {"RAY_ADDRESS": f"127.0.0.1:{port}"}
    lines = [b for b in blocks("bash") if "ray start" in b or "--executor ray" in b]
    assert len(lines) == 3
    try:
        done = subprocess.run(
            ["bash", "-e", "-c", "".join(lines)],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=180,
        )
    finally:
        stop_below(folder)
    assert done.returncode == 0, done.stderr
    assert "workers: " in done.stdout
    monkeypatch.chdir(tmp_path)
    compare_with_one_run(tmp_path / "matches")


def test_the_kubernetes_job_is_one_and_counts_from_1() -> None:
    (text,) = blocks("yaml")
    job = yaml.safe_load(text)["spec"]
    (container,) = job["template"]["spec"]["containers"]
    (line,) = container["args"]
    counted = line.replace("kapture_r2d2_match", "echo")
    said = [
        subprocess.run(
            [*container["command"], counted],
            env={**os.environ, "JOB_COMPLETION_INDEX": str(index)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()[-1]
        for index in (0, job["completions"] - 1)
    ]
    assert said == ["1/8", "8/8"]
