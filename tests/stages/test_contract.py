"""What every command promises of its outputs, whatever it makes."""

from __future__ import annotations

import json
import random
import re
import shutil
import signal
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from r2d2_kapture.cli.entry import INTERRUPTED
from r2d2_kapture.io.outputs.atomic import is_temporary
from r2d2_kapture.io.outputs.finished import FINISHED_NAME
from r2d2_kapture.io.stores.shard_index import load_members
from r2d2_kapture.io.stores.shards import FOLDER_NAME, check_shards
from r2d2_kapture.stages.export.unchanged import NOTE_NAME
from tests.http_files import running, zipped
from tests.stages.contract_runs import Ended, Running, Stop
from tests.stages.contract_stages import STAGES, Stage, write_inputs

REFUSED = (
    r"error: .+: found .+ made with .+: .+, not .+; choose another .+, or --force.+"
)
FOREIGN = r"error: .+: .+; .*choose another .+"
BUSY = r"error: .+: another run is writing to it \(process \d+ on .+\); wait .+"
FULL = r"error: .+: cannot write: No space left on device; free space .+"
BLOCKED = r"error: .+: cannot write: .+ is a file, expected a folder; choose .+"

MISSING = (
    r"error: .+: found \d of \d slices; .+ missing: run the same command with these "
    r"--slice, then with --slice all again"
)
OF_RUN = ("seconds", "slices", "seconds_of_slices", "images_read", "files")

OF_RUNS = (".lock", FINISHED_NAME, NOTE_NAME)
"""Ends of the names of files about runs, which hold times, and not of results."""

Content = dict[str, bytes]


@dataclass(frozen=True, kw_only=True)
class Made:
    """The first run of a command, and where a copy of its outputs is."""

    ended: Ended
    kept: Path


class Runs:
    """Runs of all commands in one folder.

    Args:
        folder: of inputs and outputs.
        checkpoint: that extracts.
        url: of the archive that is fetched.
    """

    def __init__(self, folder: Path, checkpoint: Path, url: str) -> None:
        self.folder = folder
        self._words = {"inputs": str(folder / "inputs"), "checkpoint": str(checkpoint)}
        self._words["url"] = "{S: " + url + "}"
        self._words["query"] = str(write_inputs(folder / "inputs"))
        self._made: dict[str, Made] = {}

    def output(self, stage: Stage) -> Path:
        return self.folder / stage.name / "output"

    def first(self, stage: Stage) -> Made:
        """The first run, which is made once, and a copy of what it made."""
        if stage.name not in self._made:
            if stage.needs:
                needed = next(s for s in STAGES if s.command == stage.needs)
                self._words[stage.needs] = str(self.first(needed).kept)
            self.output(stage).mkdir(parents=True)
            ended = self.run(stage)
            kept = self.folder / stage.name / "kept"
            shutil.copytree(self.output(stage), kept, symlinks=True)
            self._made[stage.name] = Made(ended=ended, kept=kept)
        return self._made[stage.name]

    def start(self, stage: Stage, more: str = "", stop: Stop | None = None) -> Running:
        words = stage.flags.split()
        for flag, *value in re.findall(r"(\S+)(?: ([^-]\S*))?", more):
            if flag in words:
                words[words.index(flag) + 1] = value[0]
            else:
                words += [flag, *filter(None, value)]
        output = str(self.output(stage))
        words = [word.format(output=output, **self._words) for word in words]
        folder = self.folder / stage.name
        return Running(stage.command, words, folder, stop)

    def run(self, stage: Stage, more: str = "", stop: Stop | None = None) -> Ended:
        return self.start(stage, more, stop).end()

    def content(self, stage: Stage) -> Content:
        """All files of a result that must not depend on the time, and no locks.

        Shards may be divided otherwise after a kill: what they hold is compared.
        """
        content = {
            name: values(path)
            for name, path in files(self.output(stage)).items()
            if not re.fullmatch(f"(.*/)?({stage.timed})", name)
            # left by a kill before it was whole
            and not is_temporary(path) and path.parent.name != FOLDER_NAME
        }
        for folder in self.output(stage).rglob(FOLDER_NAME):
            name = folder.relative_to(self.output(stage)).as_posix()
            content[name] = in_shards(folder)
        return content

    def states(self, stage: Stage) -> dict[str, tuple[int, bytes]]:
        """When each file was written, and its content."""
        return {
            name: (path.stat().st_mtime_ns, path.read_bytes())
            for name, path in files(self.output(stage)).items()
        }

    def empty(self, stage: Stage) -> None:
        shutil.rmtree(self.output(stage))
        self.output(stage).mkdir()

    def restore(self, stage: Stage) -> None:
        kept = self.first(stage).kept
        shutil.rmtree(self.output(stage))
        shutil.copytree(kept, self.output(stage), symlinks=True)


def files(folder: Path) -> dict[str, Path]:
    return {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith(OF_RUNS)
    }


def in_shards(folder: Path) -> bytes:
    """What the members of shards are."""
    check_shards(folder)
    members = load_members(folder)
    items = {
        name: found.read().tobytes()
        for name in members.names()
        if (found := members.find(name)) is not None
    }
    return repr(sorted(items.items())).encode()


def values(path: Path) -> bytes:
    """The bytes of a file; of states, which are never alike, the values."""
    if path.suffix == ".tar":
        with tarfile.open(path) as archive:
            # of two members of one name the last counts, as a kill may leave them
            members = {item.name: archive.extractfile(item) for item in archive}
            return repr([(k, v and v.read()) for k, v in members.items()]).encode()
    if path.name == "state.pt":
        return repr(plain(torch.load(path, weights_only=True))).encode()
    return path.read_bytes()


def plain(state: Any) -> Any:
    """A state whose tensors are bytes."""
    if isinstance(state, torch.Tensor):
        return state.dtype, state.shape, state.contiguous().numpy().tobytes()
    if isinstance(state, dict):
        return {name: plain(value) for name, value in state.items()}
    return [*map(plain, state)] if isinstance(state, list | tuple) else state


@pytest.fixture(scope="module")
def runs(
    tmp_path_factory: pytest.TempPathFactory, checkpoint_path: Path
) -> Iterator[Runs]:
    with running() as server:
        server.files["s.zip"] = zipped({"1.jpg": b"one", "2.jpg": b"two"})
        folder = tmp_path_factory.mktemp("contract")
        yield Runs(folder, checkpoint_path, server.url("s.zip"))


def stages(point: str) -> pytest.MarkDecorator:
    """The stages to which a point of the contract applies."""
    parameters = [
        pytest.param(stage, id=stage.name)
        for stage in STAGES
        if point not in stage.left_out
    ]
    return pytest.mark.parametrize("stage", parameters)


def changed(before: Mapping[str, object], after: Mapping[str, object]) -> list[str]:
    """Names of files that are not as they were."""
    names = sorted({*before, *after})
    return [name for name in names if before.get(name) != after.get(name)]


def refused(ended: Ended, form: str) -> bool:
    """Whether a run ended with one line of this form."""
    return ended.code == 2 and bool(re.fullmatch(form, "\n".join(ended.errors)))


@stages("again")
def test_a_second_run_changes_nothing(runs: Runs, stage: Stage) -> None:
    made = runs.first(stage)
    assert (made.ended.code, made.ended.errors) == (0, [])
    runs.restore(stage)
    before = runs.states(stage)
    assert before
    again = runs.run(stage)
    assert (again.code, again.errors) == (0, [])
    assert changed(before, runs.states(stage)) == []


@stages("other")
def test_other_settings_are_refused(runs: Runs, stage: Stage) -> None:
    runs.first(stage)
    runs.restore(stage)
    before = runs.states(stage)
    ended = runs.run(stage, stage.other)
    setting = stage.other.split()[0].rpartition(".")[2].strip("-").replace("-", "_")
    assert refused(ended, REFUSED.format(setting)), ended
    assert changed(before, runs.states(stage)) == []


@stages("force")
def test_force_redoes_what_is_ours_and_keeps_what_is_not(
    runs: Runs, stage: Stage
) -> None:
    runs.first(stage)
    runs.restore(stage)
    first = runs.content(stage)
    folders = {path.parent for path in files(runs.output(stage)).values()}
    others = [folder / "by hand.txt" for folder in folders]
    for path in others:
        path.write_bytes(b"precious")
    for flags in (f"{stage.other} --force", "--force"):
        before = runs.states(stage)
        ended = runs.run(stage, flags)
        assert (ended.code, ended.errors) == (0, [])
        assert runs.states(stage) != before
        assert [path.read_bytes() for path in others] == [b"precious"] * len(others)
    for path in others:
        path.unlink()
    assert changed(first, runs.content(stage)) == []


def writes(runs: Runs, stage: Stage) -> tuple[int, int, int]:
    """Numbers of writes of the first run: one of its first half, any, and the last.

    With one thread of work a run writes as often as the next, but for SQLite and
    writers in threads, which may differ by one in a hundred.
    """
    count = runs.first(stage).ended.writes
    last = count - count // 100
    draw = random.Random(stage.name)
    return draw.randint(1, (last + 1) // 2), draw.randint(1, last), last


@stages("killed")
def test_a_killed_run_is_resumed_to_the_same_bytes(runs: Runs, stage: Stage) -> None:
    _, *numbers = writes(runs, stage)
    runs.restore(stage)
    first = runs.content(stage)
    for number in numbers:
        runs.empty(stage)
        killed = runs.run(stage, stop=Stop(act="kill", at=number))
        assert killed.code == -signal.SIGKILL, number
        ended = runs.run(stage)
        assert (ended.code, ended.errors) == (0, []), number
        assert changed(first, runs.content(stage)) == [], number
    # what was finished before the last kill was kept
    assert not stage.items or ended.writes < numbers[-1] / 2


@stages("interrupted")
def test_ctrl_c_is_one_line_and_resumed(runs: Runs, stage: Stage) -> None:
    number, *_ = writes(runs, stage)
    runs.restore(stage)
    first = runs.content(stage)
    runs.empty(stage)
    ended = runs.run(stage, stop=Stop(act="interrupt", at=number))
    assert (ended.code, ended.errors) == (130, [INTERRUPTED])
    assert runs.run(stage).code == 0
    assert changed(first, runs.content(stage)) == []


@stages("full")
def test_a_full_disk_is_one_line_and_resumed(runs: Runs, stage: Stage) -> None:
    number, *_ = writes(runs, stage)
    runs.restore(stage)
    first = runs.content(stage)
    runs.empty(stage)
    ended = runs.run(stage, stop=Stop(act="full", at=number))
    assert refused(ended, FULL), ended
    assert runs.run(stage).code == 0
    assert changed(first, runs.content(stage)) == []


@stages("two")
def test_of_two_at_once_the_second_is_refused(runs: Runs, stage: Stage) -> None:
    number = runs.first(stage).ended.writes // 2
    runs.restore(stage)
    first = runs.content(stage)
    runs.empty(stage)
    running = runs.start(stage, stop=Stop(act="hold", at=number))
    running.wait_until_held()
    before = runs.states(stage)
    second = runs.run(stage)
    after = runs.states(stage)
    ended = running.end()
    assert refused(second, BUSY), second
    assert changed(before, after) == []
    assert (ended.code, ended.errors) == (0, [])
    assert changed(first, runs.content(stage)) == []


@stages("blocked")
def test_a_file_instead_of_the_folder_is_one_line(runs: Runs, stage: Stage) -> None:
    runs.first(stage)
    shutil.rmtree(runs.output(stage))
    runs.output(stage).write_bytes(b"precious")
    ended = runs.run(stage)
    kept = runs.output(stage).read_bytes()
    runs.output(stage).unlink()
    runs.output(stage).mkdir()
    assert kept == b"precious"
    assert refused(ended, BLOCKED), ended


@stages("foreign")
def test_a_file_by_others_in_the_way_is_kept(runs: Runs, stage: Stage) -> None:
    runs.first(stage)
    runs.empty(stage)
    path = runs.output(stage) / stage.foreign
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"precious")
    before = path.stat().st_mtime_ns
    forced = not stage.replaced and "force" not in stage.left_out
    for flags in ("", "--force") if forced else ("",):
        ended = runs.run(stage, flags)
        assert refused(ended, FOREIGN), ended
        assert (path.read_bytes(), path.stat().st_mtime_ns) == (b"precious", before)
    if stage.replaced:
        ended = runs.run(stage, "--force")
        assert (ended.code, ended.errors) == (0, [])
        kept = runs.content(stage)
        runs.restore(stage)
        assert changed(kept, runs.content(stage)) == []


def sliced_stages() -> pytest.MarkDecorator:
    """The stages that make slices."""
    found = [pytest.param(stage, id=stage.name) for stage in STAGES if stage.sliced]
    return pytest.mark.parametrize("stage", found)


def report_of(runs: Runs, stage: Stage) -> dict[str, object]:
    """The report of a stage, without what is of the run or of slices."""
    path = runs.output(stage) / stage.sliced
    report = dict(json.loads(path.read_text("utf-8")))
    return {name: report[name] for name in report if name not in OF_RUN}


@sliced_stages()
def test_slices_in_any_order_are_what_one_run_makes(runs: Runs, stage: Stage) -> None:
    stop = Stop(act="kill", at=max(runs.first(stage).ended.writes // 16, 4))
    runs.restore(stage)
    first, whole = runs.content(stage), report_of(runs, stage)
    runs.empty(stage)
    assert runs.run(stage, "--slice 3/4", stop).code == -signal.SIGKILL
    for part in ("2/4", "4/4", "3/4"):
        ended = runs.run(stage, f"--slice {part}")
        assert (ended.code, ended.errors) == (0, [])
    before = runs.states(stage)
    # nothing is written by what is refused, nor by a slice that is repeated
    assert refused(runs.run(stage, "--slice all"), MISSING)
    assert runs.run(stage, "--slice 2/4").code == 0
    assert changed(before, runs.states(stage)) == []
    assert runs.run(stage, "--slice 1/4").code == 0
    assert runs.run(stage, "--slice all", stop).code == -signal.SIGKILL
    ended = runs.run(stage, "--slice all")
    assert (ended.code, ended.errors) == (0, [])
    assert changed(first, runs.content(stage)) == []
    assert report_of(runs, stage) == whole
    before = runs.states(stage)
    for flags in ("--slice 2/4", "--slice all"):
        assert runs.run(stage, flags).code == 0
    assert changed(before, runs.states(stage)) == []
