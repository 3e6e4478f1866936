"""The scripts of docs/cluster.md, run as a cluster does: by a shell, in processes."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
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


def test_a_job_array_makes_what_one_run_makes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    names = [f"image {i}.jpg" for i in range(4)]
    rows = {name: rng.normal(size=(9, 16)).astype(np.float32) for name in names}
    write_features(tmp_path / "features", rows)
    pairs = [ImagePair(image1=a, image2=b) for a, b in itertools.combinations(names, 2)]
    write_pairs(tmp_path / "pairs.txt", pairs)
    stage, submission, *_ = blocks("bash")
    write_program(tmp_path / "stage.sh", stage)
    (tmp_path / "programs").mkdir()
    write_program(tmp_path / "programs" / "sbatch", SBATCH)
    write_program(
        tmp_path / "programs" / "kapture_r2d2_match",
        f'#!/bin/sh\nexec {sys.executable} -m {match.__name__} --gpu -1 "$@"\n',
    )
    path = f"{tmp_path / 'programs'}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(CHECKOUT)}
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
    inputs = "--features features --pairs pairs.txt --quiet --gpu -1".split()
    assert match.main([*inputs, "--output", "one"]) == 0
    volatile = ("match_report.json", FINISHED_NAME, ".lock")
    made = files_below(tmp_path / "matches", volatile)
    assert len(made) > len(pairs)
    assert made == files_below(tmp_path / "one", volatile)


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
