"""Reports of the outputs of other stages as one HTML file: a map, queries, or
results."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from r2d2_kapture.io.outputs.atomic import write_bytes_atomic
from r2d2_kapture.io.outputs.image_records import sha256_of
from r2d2_kapture.io.outputs.ledger import Contents
from r2d2_kapture.io.outputs.manifest import json_text, package_versions
from r2d2_kapture.stages.report.benchmarks import (
    homography_sections,
    pair_pose_sections,
)
from r2d2_kapture.stages.report.content import content_sections, databases
from r2d2_kapture.stages.report.page import TEMPLATES, Section, block_scripts, render
from r2d2_kapture.stages.report.subject import Subject, map_subject, pipeline_subject
from r2d2_kapture.stages.report.training import training_sections
from r2d2_kapture.stages.report.view import view_scripts, view_section
from r2d2_kapture.types import Report

PAGE_NAME = "report.html"
MOST_BYTES = 15_000_000
PAGES = Contents(what="page", files=())
RUN_NUMBERS = ("seconds", "done", "skipped", "outputs")
"""Fields of a pipeline's report that change with each run, unlike its outputs."""


def run(
    *,
    pipeline: Path | None = None,
    map: Path | None = None,
    images: Path | None = None,
    hpatches: Path | None = None,
    pair_poses: Path | None = None,
    training: Sequence[Path] = (),
    output: Path | None = None,
    title: str | None = None,
) -> Report:
    """Write one HTML file that shows a map in 3D, or results.

    It shows how the map was made, and the queries localized in it; or results of
    benchmarks and training. The file is self-contained and opens in a browser by double
    click, without network.

    Args:
        pipeline: output folder of kapture_r2d2_pipeline.
        map: a map alone: of kapture_r2d2_map, of kapture_r2d2_colmap --sparse, or any
            COLMAP model, binary or text.
        images: folder of the images of --map; without it the page shows no photographs.
        hpatches: output folder of kapture_r2d2_hpatches.
        pair_poses: output folder of kapture_r2d2_pair_poses.
        training: output folders of kapture_r2d2_train, one curve each.
        output: the HTML file; by default report.html in the first given folder.
        title: of the page; by default the folder's name.

    Raises:
        DatasetError: nothing to show in a folder, or something broken.
        OutputError: the file cannot be written.
    """
    if pipeline is not None:
        return report_subject(
            pipeline_subject(pipeline),
            output or pipeline / PAGE_NAME,
            title or f"Report of {pipeline.resolve().name}",
        )
    if map is not None:
        return report_subject(
            map_subject(map, images),
            output or map / PAGE_NAME,
            title or f"Map of {'/'.join(map.resolve().parts[-2:])}",
        )
    started = time.monotonic()
    sections = [
        *(homography_sections(hpatches) if hpatches else ()),
        *(pair_pose_sections(pair_poses) if pair_poses else ()),
        *(training_sections(training) if training else ()),
    ]
    page = render(title or "Report", sections, [*_chart_scripts(sections)])
    first = hpatches or pair_poses or training[0]
    return _written(output or first / PAGE_NAME, page, started)


def with_page(report: Report, make: Callable[[], Report]) -> Report:
    """Add a page to the report of a stage; a failure becomes a warning.

    Args:
        report: of the stage.
        make: function that writes the page.
    """
    try:
        page = make()
    except Exception as error:  # the stage's results are complete nevertheless
        reason = " ".join(str(error).split()) or type(error).__name__
        text = f"{PAGE_NAME} was not written: {reason}; run kapture_r2d2_report later"
        return dataclasses.replace(report, warnings=(*report.warnings, text))
    return dataclasses.replace(
        report,
        outputs=(*report.outputs, *page.outputs),
        warnings=(*report.warnings, *page.warnings),
    )


def report_subject(subject: Subject, output: Path, title: str) -> Report:
    """Write the page of a subject; an up-to-date page is kept.

    Raises:
        OutputError: the file cannot be written.
    """
    started = time.monotonic()
    shown = _shown(subject, title)
    if f'content="{shown}"' in _head(output):
        return _report(output, started, done=False)
    sections = content_sections(subject)
    scripts = [*_chart_scripts(sections), *view_scripts()]
    taken = sum(len(section.html.encode()) for section in sections)
    taken += sum(len(script.encode()) for script in scripts)
    view = view_section(subject, MOST_BYTES - taken)
    page = render(title, [view, *sections], scripts, shown=shown)
    return _written(output, page, started)


def _chart_scripts(sections: Iterable[Section]) -> Iterator[str]:
    """plotly's script, if there are charts, and ours."""
    if any('class="chart"' in section.html for section in sections):
        from plotly.offline import get_plotlyjs

        yield get_plotlyjs()
    yield from block_scripts()


def _written(output: Path, page: str, started: float) -> Report:
    if output.is_file() and 'name="shown"' not in _head(output):
        found = "a page of something else"
        raise PAGES.refusal(output, found, forcible=False)
    data = page.encode("utf-8", "replace")  # names may contain bytes that are not text
    warnings = []
    if len(data) > MOST_BYTES:
        most = f"{MOST_BYTES / 1e6:.0f} MB"
        warnings.append(
            f"{output} has {len(data) / 1e6:.0f} MB, more than the {most} that "
            "browsers open quickly"
        )
    same = output.is_file() and output.read_bytes() == data
    if not same:
        write_bytes_atomic(output, data)
    return _report(output, started, done=not same, warnings=tuple(warnings))


def _report(
    output: Path, started: float, *, done: bool, warnings: tuple[str, ...] = ()
) -> Report:
    return Report(
        stage="report",
        unit="page",
        done=int(done),
        skipped=int(not done),
        failed=(),
        seconds=time.monotonic() - started,
        outputs=(output,),
        warnings=warnings,
    )


def _head(path: Path) -> str:
    """The first lines of a page, which contain its digest; empty if there is no
    page."""
    try:
        with path.open("rb") as file:
            return file.read(4096).decode("utf-8", "replace")
    except OSError:
        return ""


def _shown(subject: Subject, title: str) -> str:
    """Digest of all inputs of a page and of its templates."""
    digest = hashlib.sha256()
    stages = subject.pipeline.get("stages", [])
    state = {
        "title": title,
        "versions": package_versions(),
        "pipeline": _without_run_numbers(subject.pipeline),
        "stages": [_without_run_numbers(stage) for stage in stages],
        "photographs": [_stamp(name, path) for name, path in _photographs(subject)],
        "databases": [_stamp(path.name, path) for path in databases(subject)],
    }
    digest.update(json_text(state).encode())
    for path in sorted([*_files(subject), *TEMPLATES.iterdir()]):
        digest.update(f"{path.name} {sha256_of(path)}\n".encode())
    return digest.hexdigest()


def _without_run_numbers(report: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in report.items()
        if name not in (*RUN_NUMBERS, "stages")
    }


def _files(subject: Subject) -> Iterator[Path]:
    """The files of the subject whose content is on the page."""
    for folder in (subject.map, subject.map / "sparse", subject.map / "0"):
        yield from (f for f in folder.glob("*") if f.suffix in (".bin", ".txt"))
    for query in subject.queries:
        yield from (query.localized / "queries").rglob("*.json")
        yield from query.evaluated.glob("results.json")


def _photographs(subject: Subject) -> Iterator[tuple[str, Path]]:
    """Those that are there, by name."""
    for files in (subject.images, *(query.images for query in subject.queries)):
        yield from sorted(one for one in files.items() if one[1].is_file())


def _stamp(name: str, path: Path) -> str:
    """Size and time, for files that are many or large."""
    status = path.stat()
    return f"{name} {status.st_size} {status.st_mtime_ns}"
