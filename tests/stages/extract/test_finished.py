"""Extraction that was finished: what a resume reads, and what it notices."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from r2d2_kapture.config.extract import ExtractConfig, R2D2Config
from r2d2_kapture.core.extraction import Extractor
from r2d2_kapture.extractors.registry import build_extractor
from r2d2_kapture.io.outputs.finished import FINISHED_NAME
from r2d2_kapture.models.checkpoints import load_checkpoint
from r2d2_kapture.stages.extract import files as extract_files
from r2d2_kapture.stages.extract import stage as extract
from r2d2_kapture.types import Report
from tests.scenes.kapture_files import write_dataset, write_noise
from tests.scenes.opened import opened_files

CONFIG = ExtractConfig(
    extractor=R2D2Config(min_size=32, top_k=50, reliability_thr=0, repeatability_thr=0),
    gpu=-1,
    precision="fp32",
)
OF_ITEMS = (".kpt", ".desc", ".png", ".jpg", ".r2d2", ".tar", ".shard", "images.jsonl")


@pytest.fixture
def extractor(checkpoint_path: Path) -> Extractor:
    return build_extractor(CONFIG, load_checkpoint(checkpoint_path))


def run(extractor: Extractor, root: Path, **others: Any) -> Report:
    return extract.run(extractor, kapture_root=root, output=root / "out", **others)


def counts(report: Report) -> tuple[int, int, int]:
    return report.done, report.skipped, len(report.failed)


@pytest.mark.parametrize("store", ["files", "tar"])
def test_a_finished_run_reads_no_image_and_no_features(
    kapture_root: Path,
    extractor: Extractor,
    store: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert counts(run(extractor, kapture_root, store=store)) == (5, 0, 0)
    opened = opened_files(monkeypatch)
    assert counts(run(extractor, kapture_root, store=store)) == (0, 5, 0)
    assert opened
    archives = (".tar",) if store == "tar" else ()  # whose members are listed
    read = [path for path in opened if path.endswith(OF_ITEMS)]
    assert {os.path.splitext(path)[1] for path in read} <= set(archives)


def test_a_resume_reports_as_one_that_compares_contents(
    kapture_root: Path, extractor: Extractor
) -> None:
    run(extractor, kapture_root)
    noted = run(extractor, kapture_root)
    (note,) = kapture_root.rglob(FINISHED_NAME)
    note.unlink()
    compared = run(extractor, kapture_root)
    assert dataclasses.replace(noted, seconds=0) == dataclasses.replace(
        compared, seconds=0
    )


@pytest.mark.parametrize("name", ["*.kpt", "*.desc"])
@pytest.mark.parametrize("cut", [None, 0, 40])
def test_lost_and_broken_features_are_made_again(
    kapture_root: Path, extractor: Extractor, name: str, cut: int | None
) -> None:
    run(extractor, kapture_root)
    path = sorted((kapture_root / "out").rglob(name))[0]
    whole = path.read_bytes()
    if cut is None:
        path.unlink()
    else:
        path.write_bytes(whole[:cut])
    assert counts(run(extractor, kapture_root)) == (1, 4, 0)
    assert path.read_bytes() == whole
    assert counts(run(extractor, kapture_root)) == (0, 5, 0)


def test_a_replaced_image_is_extracted_again(
    kapture_root: Path, extractor: Extractor
) -> None:
    run(extractor, kapture_root)
    name = extract.open_dataset(kapture_root).image_names[0]
    path = extract.open_dataset(kapture_root).image_path(name)
    with Image.open(path) as image:
        other = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    other.save(path, "png" if path.suffix == ".png" else None)
    report = run(extractor, kapture_root)
    assert (counts(report), report.details["replaced"]) == ((1, 4, 0), 1)
    again = run(extractor, kapture_root)
    assert (counts(again), again.details["replaced"]) == ((0, 5, 0), 0)
    assert again.warnings == ()


def test_datasets_with_features_in_one_folder_are_noted_side_by_side(
    tmp_path: Path, extractor: Extractor, monkeypatch: pytest.MonkeyPatch
) -> None:
    roots = [tmp_path / "map", tmp_path / "query"]
    for root in roots:
        names = [f"{root.name} {number}.png" for number in range(2)]
        for seed, name in enumerate(names):
            write_noise(root / "sensors" / "records_data" / name, seed)
        write_dataset(root, names)

    def extract_all() -> list[tuple[int, int, int]]:
        return [
            counts(extract.run(extractor, kapture_root=root, output=tmp_path / "out"))
            for root in roots
        ]

    assert extract_all() == [(2, 0, 0)] * 2
    assert extract_all() == [(0, 2, 0)] * 2  # compares: the folder has changed since
    opened = opened_files(monkeypatch)
    assert extract_all() == [(0, 2, 0)] * 2
    assert not [path for path in opened if path.endswith(OF_ITEMS)]


@pytest.mark.parametrize("file_format", ["npz", "h5"])
def test_finished_files_of_images(
    kapture_root: Path,
    extractor: Extractor,
    file_format: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dataset = extract.open_dataset(kapture_root)

    def extract_all() -> tuple[int, int, int]:
        report = extract_files.run(
            extractor,
            images=[*dataset.image_paths.values()],
            file_format=file_format,
            output_dir=kapture_root / "out",
        )
        return counts(report)

    assert extract_all() == (5, 0, 0)
    with monkeypatch.context() as patched:
        opened = opened_files(patched)
        assert extract_all() == (0, 5, 0)
        assert not [path for path in opened if path.endswith(OF_ITEMS)]
    made = sorted(
        (kapture_root / "out").rglob(f"*{'.h5' if file_format == 'h5' else '.r2d2'}")
    )
    made[0].unlink()
    assert extract_all() == ((5, 0, 0) if file_format == "h5" else (1, 4, 0))
