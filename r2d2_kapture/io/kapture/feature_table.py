"""One feature type of kapture, read from one or several folders by image name.

kapture 1.1 (github.com/naver/kapture, kapture_format.adoc): rows of all images have one
type and width, given in a text file next to them; each image's rows are a raw
little-endian file, or a member of a tar archive. Datasets are untrusted: the type is
looked up in a table, never evaluated, and names stay inside their folder.
"""

from __future__ import annotations

import dataclasses
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from r2d2_kapture.coordinates import PixelOrigin, kapture_from_colmap
from r2d2_kapture.errors import DatasetError, FeatureFormatError
from r2d2_kapture.io.kapture.dataset import (
    UPGRADE,
    read_feature_config,
)
from r2d2_kapture.io.outputs.image_changes import refuse_clashing_records
from r2d2_kapture.io.outputs.pieces import outputs_in_pieces, refuse_pieces
from r2d2_kapture.io.stores.reading import StoredItem, StoredItems, open_items
from r2d2_kapture.types import (
    FloatArray,
)

FeatureKind = Literal["keypoints", "descriptors", "global_features"]

EXTRACT = (
    "expected local features of the images; give the folder that has them with "
    "--features (of a pipeline: WORK/features), or extract them with "
    "kapture_r2d2_extract"
)
WAYS_OUT: dict[FeatureKind, str] = {
    "keypoints": EXTRACT,
    "descriptors": EXTRACT,
    "global_features": "expected some of the images; give the folder that has them "
    "with --features, or compare images by local features, which need none",
}
"""What is said of features that are missing."""

SUFFIXES: dict[FeatureKind, str] = {
    "keypoints": ".kpt",
    "descriptors": ".desc",
    "global_features": ".gfeat",
}


@dataclass(frozen=True, kw_only=True)
class FeatureFolder:
    """A folder that holds rows of one feature type.

    Attributes:
        root: the dataset or folder of features that it was found below.
        path: the folder of keypoints.txt, descriptors.txt or global_features.txt.
        kind: which of them.
        type_name: of the features: the folder's name in a dataset.
        dtype: one of FEATURE_DTYPES, little-endian in the files.
        dsize: values of a row.
        keypoints_type: that descriptors belong to; None for other kinds.
        metric: that descriptors and global features name; None where none is named.
        items: the rows of each image.
        origin: where keypoints count from in the files, see pixel_origins.py.
    """

    root: Path
    path: Path
    kind: FeatureKind
    type_name: str
    dtype: np.dtype[Any]
    dsize: int
    keypoints_type: str | None
    metric: str | None
    items: StoredItems
    origin: PixelOrigin = "center"

    def find(self, image: str) -> StoredItem | None:
        """Where an image's rows are; None where it has none."""
        return self.items.find(image + SUFFIXES[self.kind])

    def location(self, image: str) -> tuple[Path, int, int] | None:
        """File, offset and bytes of an image's rows; None where it has none."""
        found = self.find(image)
        return None if found is None else (found.path, found.offset, found.size)

    @property
    def image_names(self) -> set[str]:
        """Images that have rows here."""
        suffix = SUFFIXES[self.kind]
        names = self.items.names()
        return {name.removesuffix(suffix) for name in names if name.endswith(suffix)}


@dataclass(frozen=True, kw_only=True)
class FeatureTable:
    """Rows of one feature type by image name; safe to read from several threads.

    Attributes:
        kind, type_name: which features.
        dsize: values of a row; 2 for keypoints of several widths, which share x and y.
        folders: where they are; an image's rows come from the first that has them.
    """

    kind: FeatureKind
    type_name: str
    dsize: int
    folders: tuple[FeatureFolder, ...]

    def __contains__(self, image: object) -> bool:
        return isinstance(image, str) and self.locate(image) is not None

    @property
    def image_names(self) -> list[str]:
        """Images that have rows, by name."""
        return sorted(set().union(*(folder.image_names for folder in self.folders)))

    def files(self, images: Collection[str]) -> Iterator[str]:
        """Where the rows of images are, or would be, and what describes them."""
        suffix = SUFFIXES[self.kind]
        for folder in self.folders:
            described = sorted(folder.path.glob("*.json*"))
            yield from (str(path) for path in described if "_report" not in path.name)
            yield str(folder.path / f"{self.kind}.txt")
            yield from folder.items.files(f"{image}{suffix}" for image in images)

    def count(self, image: str) -> int:
        """Rows of an image, without reading them.

        Raises:
            FeatureFormatError: absent, or no whole number of rows.
        """
        return self._found(image)[2]

    def read(self, image: str) -> FloatArray:
        """(N, dsize) float32 rows of an image; keypoints count from pixel centres.

        Raises:
            FeatureFormatError: as read_stored.
        """
        values = self.read_stored(image).astype(np.float32)
        if self._found(image)[0].origin == "corner":
            values[:, :2] = kapture_from_colmap(values[:, :2])
        return values

    def read_stored(self, image: str) -> npt.NDArray[Any]:
        """(N, dsize) rows of an image as they are in the file, of its dtype.

        Raises:
            FeatureFormatError: absent, no whole number of rows, not finite, or not what
                was written.
        """
        folder, found, rows = self._found(image)
        path = found.path
        try:
            content = found.read()
        except OSError as error:
            raise FeatureFormatError(
                f"{path}: cannot be read: {error.strerror}; extract '{image}' again"
            ) from error
        if len(content) != found.size:
            raise FeatureFormatError(f"{path}: breaks off; extract '{image}' again")
        values = content.view(folder.dtype)
        if not np.isfinite(values).all():
            raise FeatureFormatError(
                f"{path}: found NaN or infinity in the {self.kind} of '{image}'; "
                "extract it again"
            )
        return values.reshape(rows, folder.dsize)

    def below(self, root: Path) -> FeatureTable | None:
        """The part of the table that lies below one root."""
        folders = tuple(folder for folder in self.folders if folder.root == root)
        return dataclasses.replace(self, folders=folders) if folders else None

    def of_type(self, type_name: str) -> FeatureTable:
        """The part of the table whose folders are of one type: refined keypoints may
        stand before the extracted ones."""
        folders = tuple(one for one in self.folders if one.type_name == type_name)
        return dataclasses.replace(self, type_name=type_name, folders=folders)

    def counted_from(self, origins: Iterable[PixelOrigin]) -> FeatureTable:
        """The same keypoints, with the origin of each folder."""
        folders = tuple(
            dataclasses.replace(folder, origin=origin)
            for folder, origin in zip(self.folders, origins, strict=True)
        )
        return dataclasses.replace(self, folders=folders)

    def locate(self, image: str) -> tuple[FeatureFolder, Path, int, int] | None:
        """Folder, file, offset and bytes of an image's rows; None where it has none."""
        for folder in self.folders:
            found = folder.location(image)
            if found is not None:
                return folder, *found
        return None

    def _way_out(self, image: str) -> str:
        """What to do about an image without rows: macOS decomposes names."""
        forms = {
            unicodedata.normalize("NFC", image),
            unicodedata.normalize("NFD", image),
        }
        other = next((form for form in sorted(forms - {image}) if form in self), None)
        if other is None:
            return "extract the image, or correct its name"
        return (
            f"there are those of {ascii(other)}, another Unicode form of "
            f"{ascii(image)}: rename one"
        )

    def _found(self, image: str) -> tuple[FeatureFolder, StoredItem, int]:
        for folder in self.folders:
            found = folder.find(image)
            if found is None:
                continue
            rows, rest = divmod(found.size, folder.dsize * folder.dtype.itemsize)
            if rest:
                raise FeatureFormatError(
                    f"{found.path}: found {found.size} bytes for '{image}', expected "
                    f"rows of {folder.dsize} {folder.dtype.name}; extract it again"
                )
            return folder, found, rows
        places = ", ".join(str(folder.path) for folder in self.folders)
        raise FeatureFormatError(
            f"'{image}': found no {self.kind} of type '{self.type_name}' in "
            f"{places}; {self._way_out(image)}"
        )


def open_feature_table(
    roots: Sequence[Path],
    kind: FeatureKind,
    type_name: str | None = None,
    *,
    keypoints_type: str | None = None,
) -> FeatureTable:
    """Open one feature type by name, or the only one there is.

    Args:
        roots: kapture datasets, or folders of features alone, in which the type's
            text file is at ``TYPE/keypoints/keypoints.txt`` as kapture-localization
            has it (the root is ``TYPE``). Roots without such features are passed over.
        kind: of features.
        type_name: None takes the only one there is.
        keypoints_type: only descriptors of these keypoints.

    Raises:
        DatasetError: the type is not there, there are several, two folders describe
            it differently or hold other images of one name, or a description is unsafe.
    """
    there = [
        folder
        for root in dict.fromkeys(roots)
        for folder in find_feature_folders(root, kind)
    ]
    folders = there
    if keypoints_type is not None:
        folders = [one for one in there if one.keypoints_type == keypoints_type]
        if there and not folders:
            raise DatasetError(_of_other_keypoints(there[0], keypoints_type))
    _refuse_pieces(roots, kind, {folder.type_name for folder in folders}, type_name)
    name = _choose(roots, kind, {folder.type_name for folder in folders}, type_name)
    chosen = tuple(folder for folder in folders if folder.type_name == name)
    for folder in chosen:
        refuse_pieces(folder.path)
    refuse_clashing_records([folder.path for folder in chosen])
    for folder in chosen[1:]:
        first = chosen[0]
        # columns after x and y may be of several tools: COLMAP's SIFT has 6, ours 3
        same = folder.dsize == first.dsize or kind == "keypoints"
        if folder.dtype != first.dtype or not same:
            raise DatasetError(
                f"{folder.path}: found {kind} of {folder.dsize} {folder.dtype.name}, "
                f"but {first.dsize} {first.dtype.name} of the same name '{name}' in "
                f"{first.path}; features of two kinds cannot be mixed: give one "
                "another type name"
            )
    widths = {folder.dsize for folder in chosen}
    return FeatureTable(
        kind=kind,
        type_name=name,
        dsize=widths.pop() if len(widths) == 1 else 2,
        folders=chosen,
    )


def find_feature_folders(root: Path, kind: FeatureKind) -> list[FeatureFolder]:
    """Folders of one kind of features below a root, see open_feature_table.

    Raises:
        DatasetError: the root is not there, or a description is unsafe.
    """
    if not root.is_dir():
        raise DatasetError(
            f"{root}: found no such folder, expected a kapture dataset or features"
        )
    file = f"{kind}.txt"
    typed = sorted((root / "reconstruction" / kind).glob(f"*/{file}"))
    typed += sorted((root / kind).glob(f"*/{file}"))
    named = [(path.parent, path.parent.name) for path in typed]
    old = root / "reconstruction" / kind / file
    if old.is_file():
        read_feature_config(old)
        raise DatasetError(
            f"{old}: found {kind} of kapture 1.0, without a folder of their type; "
            f"convert the dataset: {UPGRADE}"
        )
    if (root / kind / file).is_file():
        named.append((root / kind, root.resolve().name))
    return [_open_folder(root, folder, kind, name) for folder, name in named]


def _open_folder(
    root: Path, path: Path, kind: FeatureKind, type_name: str
) -> FeatureFolder:
    fields = read_feature_config(path / f"{kind}.txt")
    metric_field = 4 if kind == "descriptors" else 3
    return FeatureFolder(
        root=root,
        path=path,
        kind=kind,
        type_name=type_name,
        dtype=np.dtype(fields[1]).newbyteorder("<"),
        dsize=int(fields[2]),
        keypoints_type=fields[3] if kind == "descriptors" and len(fields) > 3 else None,
        metric=None if not fields[metric_field:] else fields[metric_field],
        items=open_items(path, f"{kind}.tar", SUFFIXES[kind]),
    )


def _of_other_keypoints(folder: FeatureFolder, keypoints_type: str) -> str:
    described = folder.path / f"{folder.kind}.txt"
    return (
        f"{described}: says that the {folder.kind} '{folder.type_name}' belong to "
        f"keypoints '{folder.keypoints_type}', expected '{keypoints_type}'; if a "
        f"folder was renamed, name it '{folder.keypoints_type}' again or correct the "
        "file, else choose other --keypoints-type"
    )


def _refuse_pieces(
    roots: Sequence[Path], kind: FeatureKind, found: set[str], wanted: str | None
) -> None:
    """Refuse features that are missing, but of which there are slices."""
    if found if wanted is None else wanted in found:
        return
    for root in roots:
        for output in outputs_in_pieces(root / "reconstruction" / kind):
            if wanted in (None, output.name):
                refuse_pieces(output)


def _choose(
    roots: Sequence[Path], kind: FeatureKind, found: set[str], wanted: str | None
) -> str:
    if wanted in found:
        return str(wanted)
    if wanted is None and len(found) == 1:
        return next(iter(found))
    places = ", ".join(str(root) for root in roots)
    flag = f"--{kind.replace('_', '-')}-type"
    if not found:
        name = kind.replace("_", " ")
        of_type = "" if wanted is None else f" (of type '{wanted}')"
        raise DatasetError(f"{places}: found no {name}{of_type}, {WAYS_OUT[kind]}")
    listed = ", ".join(sorted(found))
    if wanted is not None:
        raise DatasetError(
            f"{places}: found {kind} types {listed}, expected '{wanted}' ({flag})"
        )
    raise DatasetError(f"{places}: found {kind} types {listed}; choose one with {flag}")
