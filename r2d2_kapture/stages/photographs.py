"""Folders of photographs as inputs: each becomes a kapture dataset with links."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from r2d2_kapture.config.checks import require
from r2d2_kapture.config.photographs import FolderConfig
from r2d2_kapture.errors import ConfigError, DatasetError
from r2d2_kapture.io.colmap.image_folder import write_image_folder_dataset
from r2d2_kapture.io.names import broken_in_table_by, shown
from r2d2_kapture.types import Report, counted

MAPPING = "mapping"
"""Name of the dataset of the map's photographs, reserved."""


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Kapture datasets, given or made from photographs.

    Attributes:
        mapping: dataset of the map's images.
        queries: by name.
        photographs: number of photographs of the map; 0 if a dataset was given.
        reports: one for each folder of photographs.
    """

    mapping: Path
    queries: Mapping[str, Path]
    photographs: int
    reports: tuple[Report, ...]


@dataclass(frozen=True, kw_only=True)
class Photographs:
    """Makes datasets from folders of photographs.

    Attributes:
        config: cameras of the map's photographs; those of queries are estimated by
            localization.
        of_queries: whether it is of the queries' photographs instead, where parameters
            are known.
        output: folder for the datasets, by name.
        exclude: patterns of what to leave out of folders, see find_images.
        masks: folder of masks, which is skipped inside a folder of photographs.
        replace: replace the photographs of an earlier run.
    """

    config: FolderConfig
    output: Path
    of_queries: bool = False
    exclude: Sequence[str] = ()
    masks: Path | None = None
    replace: bool = False

    def take(
        self, *, images: Path | None, mapping: Path | None, queries: Mapping[str, Path]
    ) -> Inputs:
        """Make datasets from the inputs that are folders of photographs.

        Args:
            images: folder of the map's photographs, or
            mapping: the map's dataset; a folder without ``sensors`` is taken as
                photographs, with a warning.
            queries: datasets or folders of photographs, by name.

        Raises:
            ConfigError: not exactly one of images and mapping is given, or settings of
                photographs without any.
            DatasetError: a folder without photographs.
            OutputError: there are photographs of another folder, or files cannot be
                written.
        """
        given = images if mapping is None else mapping
        if given is None or (images is not None and mapping is not None):
            raise ConfigError(
                f"--images, --mapping: found {'neither' if given is None else 'both'}, "
                "expected one of them: a folder of photographs or a kapture dataset"
            )
        folders = {name: path for name, path in queries.items() if is_plain(path)}
        of_map = images is not None or is_plain(given)
        self._refuse_useless(of_map, any_folder=of_map or bool(folders))
        found: dict[str, Report] = {}
        if of_map:
            found[MAPPING] = self._make(given, MAPPING, asked=images is not None)
        for name, folder in folders.items():
            found[name] = self._make(folder, name, asked=False)
            if of_map and folder.resolve().is_relative_to(given.resolve()):
                found[name] = _with_warning(
                    found[name],
                    f"{folder}: its photographs are in the map too ({given}); their "
                    "poses do not show how well other photographs are localized",
                )
        made = {name: self.output / name for name in found}
        return Inputs(
            mapping=made.get(MAPPING, given),
            queries={name: made.get(name, path) for name, path in queries.items()},
            photographs=found[MAPPING].details["images"] if of_map else 0,
            reports=tuple(found.values()),
        )

    def _make(self, images: Path, name: str, *, asked: bool) -> Report:
        """Make a dataset with links to a folder of photographs."""
        started = time.monotonic()
        query = None if name == MAPPING else name
        broken = None if query is None else broken_in_table_by(query)
        if broken is not None:
            raise ConfigError(
                f"--query {shown(str(images))}: the name '{shown(name)}' {broken}, "
                "which names of images must not; write NAME=DIR with another name"
            )
        try:
            folder = write_image_folder_dataset(
                images,
                self.output / name,
                self.config if self.of_queries or query is None else FolderConfig(),
                exclude=self.exclude,
                masks=self.masks,
                query=query,
                replace=self.replace,
            )
        except DatasetError as error:
            also = "" if asked else "; nor is it a kapture dataset (no sensors)"
            raise DatasetError(f"{error}{also}") from error
        notice = (
            f"{images}: taken as a folder of photographs (--images), since it has no "
            "sensors/sensors.txt of a kapture dataset"
        )
        cameras = {
            "cameras": folder.cameras,
            "with_focal_length": folder.with_focal_length,
        }
        places = {"with_position": folder.with_position}
        return Report(
            stage="photographs",
            unit="photograph",
            summary="" if query else counted(folder.cameras, "camera"),
            done=len(folder.names) - folder.unchanged,
            skipped=folder.unchanged,
            failed=folder.failed,
            warnings=folder.warnings if asked or query else (notice, *folder.warnings),
            seconds=time.monotonic() - started,
            outputs=(folder.root,),
            details={
                "folder": str(images),
                "images": len(folder.names),
                **({} if query else cameras),
                **(places if folder.with_position else {}),
            },
        )

    def _refuse_useless(self, of_map: bool, any_folder: bool) -> None:
        """Refuse settings of photographs where datasets are given."""
        config = self.config
        require(
            of_map or config.camera_model is None or (self.of_queries and any_folder),
            f"--camera-model {config.camera_model}: found a kapture dataset, expected "
            "a folder of photographs; a dataset has its cameras in sensors/sensors.txt",
        )
        require(
            any_folder or not self.exclude,
            f"--exclude {' '.join(self.exclude)}: found kapture datasets, expected "
            "folders of photographs; remove the images from the dataset's records",
        )


def _with_warning(report: Report, text: str) -> Report:
    return dataclasses.replace(report, warnings=(*report.warnings, text))


def is_plain(path: Path) -> bool:
    """Whether a folder is not a kapture dataset, not even a broken one."""
    return path.is_dir() and not (path / "sensors").exists()
