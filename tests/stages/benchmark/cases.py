"""Both benchmarks on the same small images, and runs of them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pycolmap

from r2d2_kapture.config.extract import ExtractConfig, R2D2Config
from r2d2_kapture.config.hpatches import HomographyConfig
from r2d2_kapture.config.pair_poses import PairPosesConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.evaluation.feature_files import feature_path
from r2d2_kapture.evaluation.posed_images import PosedImages
from r2d2_kapture.extractors.registry import build_extractor
from r2d2_kapture.io.features.npz import write_npz
from r2d2_kapture.io.images.decoding import read_rgb
from r2d2_kapture.models.checkpoints import load_checkpoint
from r2d2_kapture.stages import benchmark
from r2d2_kapture.stages.benchmark import hpatches
from r2d2_kapture.stages.benchmark.benchmark import Benchmark
from r2d2_kapture.stages.benchmark.feature_sources import (
    ExtractedFeatures,
    FeatureSource,
)
from r2d2_kapture.stages.benchmark.pair_poses import posed_pairs
from r2d2_kapture.stages.benchmark.stored_features import (
    StoredFeatures,
    features_beside_images,
)
from r2d2_kapture.types import LocalFeatures, Report
from tests.scenes.images import CROP_SIZE, write_crops
from tests.scenes.two_views import posed_image

QUIET = RunOptions(progress=False)
CONFIG = HomographyConfig(worst_pairs=0)
TINY = R2D2Config(min_size=64, reliability_thr=0, repeatability_thr=0, top_k=60)
FEW = dataclasses.replace(TINY, top_k=20)
Open = Callable[..., Benchmark[Any, Any]]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A benchmark of three items, and features that a tiny network extracts.

    Attributes:
        name: a key of CASES.
        root: folder of the images.
        open: opens it, with settings.
        source: the features.
        fewer: the same of other settings.
    """

    name: str
    root: Path
    open: Open
    source: ExtractedFeatures
    fewer: ExtractedFeatures

    @property
    def images(self) -> list[Path]:
        """Those of the items, in order."""
        items = self.open().items
        return list(dict.fromkeys(image for item in items for image in item.images))

    def run(
        self,
        output: Path,
        source: FeatureSource | None = None,
        *,
        options: RunOptions = QUIET,
        opened: Benchmark[Any, Any] | None = None,
        **settings: Any,
    ) -> Report:
        """Run it, or a benchmark that is open; no pictures are drawn by default."""
        return benchmark.run(
            opened or self.open(**settings),
            sources=[source or self.source],
            output=output,
            options=options,
        )

    def units(self, *images: Path) -> int:
        """What the items with any of some images count; without images, all."""
        return sum(
            item.size
            for item in self.open().items
            if not images or not set(images).isdisjoint(item.images)
        )

    def item_files(self, output: Path) -> list[Path]:
        """The files of results of the items."""
        opened = self.open()
        folder = output / "tiny_one" / "results"
        return [folder / f"{i.name}{opened.item_suffix}" for i in opened.items]

    def results(self, output: Path) -> Path:
        return output / f"tiny_one{self.open().presentation.suffix}"

    def store_features(self) -> StoredFeatures:
        """Write the features next to the images."""
        for image in self.images:
            write_npz(feature_path(image, "r2d2"), extract(self.source, image))
        return features_beside_images("r2d2", self.source.label)


def sequences_of(root: Path) -> Open:
    def open_sequences(worst_pairs: int = 0, **settings: Any) -> Benchmark[Any, Any]:
        config = HomographyConfig(worst_pairs=worst_pairs, **settings)
        return hpatches.open_benchmark(config, root=root)

    return open_sequences


def pairs_of(root: Path) -> Open:
    """All six pairs of four images."""
    camera = pycolmap.Camera(
        model="PINHOLE",
        width=CROP_SIZE[0],
        height=CROP_SIZE[1],
        params=[90.0, 90.0, 48.0, 40.0],
    )
    names = [*(f"v_à b/{number}.png" for number in (1, 2, 3)), "other/1.png"]
    images = tuple(
        dataclasses.replace(
            posed_image(name, translation=(0.1 * number, 0, 0)),
            path=root / name,
            camera=camera,
        )
        for number, name in enumerate(names)
    )

    def open_pairs(worst_pairs: int = 0, **settings: Any) -> Benchmark[Any, Any]:
        config = PairPosesConfig(worst_pairs=worst_pairs, **settings)
        return posed_pairs(config, PosedImages(images=images, root=root))

    return open_pairs


CASES = {"hpatches": sequences_of, "pair_poses": pairs_of}


def make_case(name: str, folder: Path, checkpoint_path: Path) -> Case:
    root = write_sequences(folder / "root")
    return Case(
        name=name,
        root=root,
        open=CASES[name](root),
        source=tiny_source(checkpoint_path),
        fewer=tiny_source(checkpoint_path, FEW),
    )


def replace(path: Path, content: bytes) -> None:
    """Write other bytes, and a later time however fast the test is."""
    before = path.stat().st_mtime_ns
    path.write_bytes(content)
    os.utime(path, ns=(before, before + 10**9))


def pad(paths: Sequence[Path]) -> None:
    """Give image files the same length."""
    length = max(path.stat().st_size for path in paths)
    for path in paths:
        path.write_bytes(path.read_bytes().ljust(length, b"\0"))


def run(
    root: Path,
    output: Path,
    *sources: FeatureSource,
    options: RunOptions = QUIET,
    config: HomographyConfig = CONFIG,
) -> Report:
    sequences = hpatches.open_benchmark(config, root=root)
    return benchmark.run(sequences, sources=sources, output=output, options=options)


def extract(source: ExtractedFeatures, image: Path) -> LocalFeatures:
    return source.extractor.extract_batch([read_rgb(image)])[0]


def write_sequences(root: Path) -> Path:
    """Four sequences of shifted crops, one of a name that is left out by default."""
    for seed, name in enumerate(("v_à b", "sub/i_lamp", "v_talent", "other")):
        write_crops(root / name, seed)
    return root


def tiny_source(
    checkpoint_path: Path, settings: R2D2Config = TINY
) -> ExtractedFeatures:
    """Features that the network of a checkpoint extracts in no time."""
    return ExtractedFeatures(
        label="tiny one",
        extractor=build_extractor(
            ExtractConfig(extractor=settings, gpu=-1, precision="fp32"),
            load_checkpoint(str(checkpoint_path)),
        ),
    )
