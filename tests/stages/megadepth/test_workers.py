"""Jobs in processes of their own: results, failures, crashes, and an early end."""

from __future__ import annotations

import os
import time
from contextlib import closing
from pathlib import Path

import pytest

from r2d2_kapture.errors import DatasetError, OutputError
from r2d2_kapture.stages.megadepth.workers import run_apart


def double(value: int) -> int:
    if value == 1:
        os.abort()
    if value == 2:
        raise OutputError("full")
    return 2 * value


def stay(path: Path, leave: bool) -> None:
    """One that stays notes its process; one that leaves waits for that."""
    if not leave:
        path.with_suffix(".tmp").write_text(str(os.getpid()))
        path.with_suffix(".tmp").rename(path)
        time.sleep(300)
    while not path.exists():
        time.sleep(0.01)


@pytest.mark.usefixtures("quick_processes")
def test_a_crash_is_the_failure_of_one_job() -> None:
    results = dict(run_apart(double, [(number,) for number in range(4)], workers=2))
    assert (results[0], results[3]) == (0, 6)
    assert isinstance(results[1], DatasetError) and "crashed" in str(results[1])
    assert isinstance(results[2], OutputError) and str(results[2]) == "full"


def test_there_may_be_no_job() -> None:
    assert list(run_apart(double, [], workers=3)) == []


@pytest.mark.usefixtures("quick_processes")
def test_processes_end_with_who_waits_for_them(tmp_path: Path) -> None:
    noted = tmp_path / "process"
    jobs = [(noted, False), (noted, True)]
    with closing(run_apart(stay, jobs, workers=2)) as results:
        assert next(results) == (1, None)
        process_id = int(noted.read_text())
        os.kill(process_id, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(process_id, 0)


def break_down(number: int) -> int:
    raise KeyError(number)


def test_a_defect_of_a_job_is_raised_with_its_traceback() -> None:
    with closing(run_apart(break_down, [(3,)], workers=1)) as results:
        with pytest.raises(RuntimeError, match="in break_down(.|\n)*KeyError: 3"):
            next(results)
