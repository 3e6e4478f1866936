"""A COLMAP model of anyone as the input of a pipeline: poses and cameras are kept."""

from __future__ import annotations

import dataclasses
import glob
import shlex
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import kapture
import pycolmap

from r2d2_kapture.config.pairs import PairsConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.errors import DatasetError
from r2d2_kapture.io.colmap.sparse_map import read_colmap_model
from r2d2_kapture.io.images.search import find_images, leave_out_names
from r2d2_kapture.io.kapture.camera_sizes import CameraImage, unlike_cameras
from r2d2_kapture.io.kapture.dataset import Dataset, open_dataset
from r2d2_kapture.io.kapture.tables import image_records
from r2d2_kapture.stages.imports import import_colmap
from r2d2_kapture.types import Failure, Report, counted, some_names


@dataclass(frozen=True, kw_only=True)
class GivenModel:
    """A model as a dataset.

    Attributes:
        dataset: its registered images whose files are there; others are left out.
        has_points: whether images observe points in common.
        report: of the import.
    """

    dataset: Dataset
    has_points: bool
    report: Report

    def pairing(self, asked: PairsConfig) -> PairsConfig:
        """The pair method: not covisibility, where no points are seen."""
        if asked.method == "covisibility" and not self.has_points:
            return dataclasses.replace(asked, method="exhaustive")
        return asked


def take_model(
    path: Path,
    images: Path,
    output: Path,
    *,
    exclude: Sequence[str] = (),
    options: RunOptions = RunOptions(),
) -> GivenModel:
    """Make a dataset of a model, to be mapped again in its poses.

    Args:
        path: of the model, see ``read_colmap_model``.
        images: folder that its image names are relative to.
        output: folder of the dataset.
        exclude: patterns of images of the model and of the folder to leave out, see
            is_excluded.
        options: whether a dataset of another model is replaced, and progress shown.

    Returns:
        Images without a file are failures of the report; those of the folder that are
        not registered are named in a warning.

    Raises:
        DatasetError: no model, no registered image that is not excluded, no image file,
            or none of the size of its camera.
        OutputError: another dataset is there, or it cannot be written.
    """
    model = read_colmap_model(path)
    registered = {
        image.name: image for image in map(model.image, model.reg_image_ids())
    }
    if not registered:
        found = counted(model.num_images(), "image")
        raise DatasetError(
            f"{path}: found a model of {found}, none of them with a pose, expected 2 "
            "or more; register them with COLMAP first, or map the photographs alone: "
            "omit --model-in"
        )
    kept, notes = leave_out_names(
        sorted(registered.keys() | set(_image_names(images))), exclude
    )
    wanted = registered.keys() & set(kept)
    if not wanted:
        raise DatasetError(f"{path}: {'; '.join(notes)}; no image is left to map")
    missing = _missing(wanted, images, path)
    used = wanted.difference(missing)
    if len(used) == 1:
        raise DatasetError(
            f"{images}: found 1 of {counted(len(wanted), 'image')} of {path}, "
            "expected 2 or more: a map is made of pairs"
        )
    unlike_cameras(_sizes((registered[name] for name in used), images, path), path)
    report = import_colmap(
        model=path,
        images=images,
        output=output,
        check_files=False,
        # keypoints that are there stay: they are not used
        options=dataclasses.replace(options, force=False, replace=options.replaces),
    )
    return GivenModel(
        dataset=_part(open_dataset(output), used),
        has_points=model.num_points3D() > 0,
        report=dataclasses.replace(
            report,
            failed=_failures(missing, images, path),
            warnings=(
                *report.warnings,
                *notes,
                *_warnings(model, set(kept) - registered.keys(), path, images),
            ),
        ),
    )


def _image_names(images: Path) -> list[str]:
    """The images of a folder, relative to it; none where there is none."""
    if not images.is_dir():
        return []
    found = find_images([str(images)]).paths
    return [file.relative_to(images).as_posix() for file in found]


def _missing(names: Iterable[str], images: Path, model: Path) -> list[str]:
    """The images that have no file.

    Raises:
        DatasetError: all of them.
    """
    every = sorted(names)
    missing = [name for name in every if not (images / name).is_file()]
    if len(missing) == len(every):
        raise DatasetError(
            f"{images}: found none of the {counted(len(every), 'image')} of {model}: "
            f"{some_names(every)}; give the --images that these names are relative to"
            f"{_hint(every[0], images)}"
        )
    return missing


def _hint(name: str, images: Path) -> str:
    """Where a file of this name is, if it is near."""
    for depth, folder in enumerate(PurePosixPath(name).parents):
        inside = PurePosixPath(name).relative_to(folder)
        if depth and (images / inside).is_file():
            return f": '{images / inside}' is there"
    place = next(images.rglob(PurePosixPath(name).name), None)
    return "" if place is None else f": '{place}' is there"


def _failures(names: Sequence[str], images: Path, model: Path) -> tuple[Failure, ...]:
    reason = f"{images}: has no such file, which {model} names; complete the folder, or"
    return tuple(
        Failure(
            name=name,
            reason=f"{reason} leave it out: --exclude {shlex.quote(glob.escape(name))}",
        )
        for name in names
    )


def _sizes(
    registered: Iterable[pycolmap.Image], images: Path, model: Path
) -> dict[str, CameraImage]:
    """The files of images, with the sizes of their cameras."""
    return {
        image.name: CameraImage(
            path=images / image.name,
            size=(image.camera.width, image.camera.height),
            camera=f"camera {image.camera_id} of {model}",
        )
        for image in registered
    }


def _part(dataset: Dataset, names: Iterable[str]) -> Dataset:
    """The dataset without the records of other images."""
    wanted = frozenset(names)
    records = kapture.RecordsCamera()
    for timestamp, sensor_id, name in image_records(dataset.data).values():
        if name in wanted:
            records[timestamp, sensor_id] = name
    data = kapture.Kapture(
        sensors=dataset.data.sensors,
        rigs=dataset.data.rigs,
        trajectories=dataset.data.trajectories,
        records_camera=records,
    )
    return dataclasses.replace(
        dataset,
        data=data,
        image_names=tuple(name for name in dataset.image_names if name in wanted),
    )


def _warnings(
    model: pycolmap.Reconstruction,
    others: Collection[str],
    path: Path,
    images: Path,
) -> Iterator[str]:
    """What of the model and of the folder is not used."""
    if not model.num_points3D():
        yield (
            f"{path} has no points, by which images that see the same are known: all "
            "are paired, or those that look alike"
        )
    if others:
        yield (
            f"{counted(len(others), 'image')} of {images} not registered in {path}: "
            f"{some_names(sorted(others))}; give them with --query, in a folder of "
            "their own, to localize them"
        )
