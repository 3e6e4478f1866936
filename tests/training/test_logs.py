"""CSV rows survive a resume; a log that cannot be written stops nothing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from r2d2_kapture.training.logs import CsvLog, Mean, RunLog, progress_line
from tests.scenes.training import rows


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "log.csv"
    log = CsvLog(path, last_step=0)
    for step in (10, 20, 30):
        log.append({"step": step, "loss": step / 10, "ap": 0.5})
    return path


def test_rows_after_the_resumed_step_are_cut(table: Path) -> None:
    log = CsvLog(table, last_step=20)
    assert [row["step"] for row in rows(table)] == ["10", "20"]
    log.append({"step": 30, "loss": 9.0, "ap": 0.75})
    assert rows(table)[-1] == {"step": "30", "loss": "9.0", "ap": "0.75"}
    CsvLog(table, last_step=0)
    assert table.read_text() == "step,loss,ap\n"


def test_a_resume_at_the_last_row_changes_nothing_not_even_columns(table: Path) -> None:
    before = table.read_bytes()
    CsvLog(table, last_step=30)
    assert table.read_bytes() == before
    CsvLog(table, last_step=30).append({"ap": 0.1, "other": 3, "step": 40})
    assert rows(table)[-1] == {"step": "40", "loss": "", "ap": "0.1"}


@pytest.mark.parametrize("end", ["40,4.", "40", "4", "40,4.0,0.5"])
def test_a_row_cut_by_a_kill_is_removed(table: Path, end: str) -> None:
    with table.open("a") as file:
        file.write(end)  # no line end: not whole
    log = CsvLog(table, last_step=100)
    log.append({"step": 40, "loss": 4.5, "ap": 1.0})
    assert [row["loss"] for row in rows(table)] == ["1.0", "2.0", "3.0", "4.5"]


def test_what_is_no_table_of_ours_is_begun_again(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(b"\xff\xfe other,things\n1,2\n")
    CsvLog(path, last_step=5).append({"step": 6, "loss": 1.0})
    assert rows(path) == [{"step": "6", "loss": "1.0"}]


def test_means_are_taken_once() -> None:
    mean = Mean()
    mean.add({"a": 1.0, "b": 2.0})
    mean.add({"a": 3.0, "b": 2.0})
    assert mean.take() == {"a": 2.0, "b": 2.0}
    assert mean.take() == {}
    mean.add({"a": 5.0})
    assert mean.take() == {"a": 5.0}


def test_the_log_writes_csv_and_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    lines: list[str] = []
    log = RunLog(tmp_path, 0, lines.append)
    log.training(10, {"loss": 1.5})
    log.training(20, {"loss": 0.123456789})
    log.validation(20, {"score": 0.25})
    assert [row["loss"] for row in rows(tmp_path / "log.csv")] == ["1.5", "0.123457"]
    assert rows(tmp_path / "validation.csv") == [{"step": "20", "score": "0.25"}]
    assert lines == ["step 20: validation  score 0.25"]
    resumed = RunLog(tmp_path, 10, lines.append)
    resumed.training(20, {"loss": 7.0})
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    found = {event.step: event.value for event in events.Scalars("train/loss")}
    assert found == {10: 1.5, 20: 7.0}


def test_no_tensorboard_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    lines: list[str] = []
    log = RunLog(tmp_path, 0, lines.append)
    log.training(1, {"loss": 1.0})
    assert len(lines) == 1 and "pip install tensorboard" in lines[0]
    assert len(rows(tmp_path / "log.csv")) == 1


def test_a_log_that_cannot_be_written_is_reported_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    log = RunLog(tmp_path, 0, lines.append)

    def full(self: CsvLog, row: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(CsvLog, "append", full)
        log.training(1, {"loss": 1.0})
        log.training(2, {"loss": 1.0})
    assert len([line for line in lines if "No space left" in line]) == 1
    log.training(3, {"loss": 1.0})
    assert [row["step"] for row in rows(tmp_path / "log.csv")] == ["3"]


def test_the_line_of_a_minute_says_where_the_run_is() -> None:
    line = progress_line(1270, 6000, {"loss": 1.2345678, "ap": 0.61}, 3.5)
    assert line == "step 1270/6000  loss 1.235  ap 0.61  3.5 s/step  4 h 36 min left"
