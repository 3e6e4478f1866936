"""A stage that writes a file for each name, whose slices get into trouble as planned.

Workers of Ray import it by its name.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.config.slices import WHOLE
from r2d2_kapture.errors import DatasetError
from r2d2_kapture.io.outputs.ledger import Contents, open_ledger, write_item
from r2d2_kapture.io.outputs.manifest import Manifest
from r2d2_kapture.io.outputs.slices import Sliced
from r2d2_kapture.io.progress import Progress
from r2d2_kapture.types import Failure, Report

WORDS = Contents(what="words", files=("*.word",))
MANIFEST = Manifest(model={}, settings={}, versions={})
NAMES = tuple(f"word{number}" for number in range(20))


def run(
    names: Sequence[str],
    *,
    output: Path,
    trouble: Mapping[str, str],
    slice: str = WHOLE,
    options: RunOptions = RunOptions(),
) -> Report:
    """Write a file for each name, which holds the name in capitals.

    Args:
        names: of the files.
        output: their folder; beside it, files say which trouble there was.
        trouble: what happens to the slice with an item, before it is written:
            ``killed`` once, ``always killed``, ``refused``, ``defect``, ``head killed``
            once, ``slow``, or ``failed``, which the item does alone.
        slice: of the names.
        options: how to run.
    """
    sliced = Sliced.read(slice, output, WORDS, unit="word")
    options = sliced.options(options)
    mine, done, failed = sliced.part.of(names), 0, list[Failure]()

    def lacking() -> int:
        return sum(not (output / f"{name}.word").exists() for name in names)

    with sliced.open(MANIFEST, names, options, lacking=lacking) as made:
        folder = sliced.root(output)
        with open_ledger(folder, WORDS, MANIFEST, options, anew=options.force):
            made.gather(output)
            places = (folder, output) if not options.force else (folder,)
            todo = [
                name
                for name in mine
                if not any((place / f"{name}.word").exists() for place in places)
            ]
            made.is_empty = not todo
            bar = Progress(
                "toy",
                "word",
                len(mine),
                done=len(mine) - len(todo),
                shown=options.progress,
                also=options.on_progress,
            )
            for name in bar.over(todo):
                planned = trouble.get(name, "")
                if planned == "failed":
                    failed.append(Failure(name=name, reason="as planned"))
                    if options.strict:
                        break
                    continue
                if sliced.is_part:
                    get_into(planned, output.with_name(f"{name} {planned}"))
                write_item(folder, folder / f"{name}.word", name.upper().encode())
                done += 1
        report = Report(
            stage="toy",
            unit="word",
            done=done,
            skipped=len(mine) - done - len(failed),
            failed=tuple(failed),
            seconds=1.0,
            outputs=(output,),
        )
        return made.finish(report, output / "report.json")


def get_into(trouble: str, told: Path) -> None:
    """What a slice is planned to get into; a file tells of it."""
    once = not told.exists()
    if trouble:
        told.touch()
    if trouble == "always killed" or (trouble == "killed" and once):
        os.kill(os.getpid(), signal.SIGKILL)
    if trouble == "head killed" and once:
        os.kill(own_head(), signal.SIGKILL)
        signal.pause()
    if trouble == "slow":
        time.sleep(60)
    if trouble == "refused":
        raise DatasetError("words: found trouble, expected none; as planned")
    if trouble == "defect":
        raise ZeroDivisionError("as planned")


def own_head() -> int:
    """The process that is the head of the Ray that this one is a worker of."""
    scratch = re.search(r"/r2d2-ray-[^/]+", command_of(os.getppid()))
    assert scratch, "not a worker of a Ray of this machine"
    return next(p for p in running(scratch[0]) if "gcs_server" in command_of(p))


def running(text: str) -> list[int]:
    """The processes whose command line has a text."""
    found = [int(name) for name in os.listdir("/proc") if name.isdecimal()]
    return [process for process in found if text in command_of(process)]


def command_of(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_text("utf-8", "replace")
    except OSError:
        return ""
