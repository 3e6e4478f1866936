"""Whether features that are there are those of the image files that are there."""

from __future__ import annotations

import dataclasses
import filecmp
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from r2d2_kapture.errors import DatasetError, ImageError
from r2d2_kapture.io.images.decoding import image_size
from r2d2_kapture.io.images.masks import MaskFolder
from r2d2_kapture.io.names import shown
from r2d2_kapture.io.outputs.image_records import (
    ImageRecord,
    read_records,
    record_image,
    stamp_of,
)
from r2d2_kapture.io.outputs.recorded_features import FeatureStore
from r2d2_kapture.types import some_names


@dataclass(frozen=True, kw_only=True)
class Outstanding:
    """Images that have to be extracted.

    Attributes:
        images: files by name, in order.
        replaced: names of those that have features, but of other content.
    """

    images: dict[str, Path]
    replaced: tuple[str, ...]

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a report says of replaced images."""
        if not self.replaced:
            return ()
        names = some_names(map(shown, self.replaced))
        return (
            "images or masks replaced since extraction, and extracted again: "
            f"{len(self.replaced)} ({names}); run later stages again too",
        )


def outstanding(
    images: Mapping[str, Path], store: FeatureStore, masks: MaskFolder | None = None
) -> Outstanding:
    """Compare images with stored features; drop those of other content.

    A file with the recorded path, length and times is not read. Features without a
    record count as those of a file that is not newer than they are.

    Args:
        images: files by name.
        store: where their features are, or will be.
        masks: of the images; another one than that of the features counts as a change.

    Raises:
        DatasetError: features under a name are those of another file that is still
            there.
    """
    todo: dict[str, Path] = {}
    replaced: list[str] = []
    renewed: dict[str, ImageRecord] = {}
    clashes: list[tuple[str, Path, Path]] = []
    for name, path in images.items():
        if not store.is_complete(name):
            todo[name] = path
            continue
        known = store.record(name)
        current = (
            _adopted(path, store.written_ns(name)) if known is None else known.at(path)
        )
        if current is None:
            todo[name] = path
            replaced.append(name)
            if known is not None and is_another(Path(known.path), path):
                clashes.append((name, Path(known.path), path))
        elif current.mask != ("" if masks is None else masks.digest(name, path)):
            todo[name] = path
            replaced.append(name)
        elif current != known:
            renewed[name] = current
    if clashes:
        raise two_of_one_name(
            clashes, ", or give datasets that are never used together two outputs"
        )
    for name, record in renewed.items():
        store.renew(name, record)
    for name in replaced:
        store.drop(name)
    return Outstanding(images=todo, replaced=tuple(replaced))


def _adopted(path: Path, written_ns: int) -> ImageRecord | None:
    """A record for features without; None where the image is newer, or broken."""
    try:
        stamp = stamp_of(path)
        if stamp["modified_ns"] > written_ns:
            return None
        record = record_image(path, stamp, image_size(path))
    except (OSError, ImageError):
        return None
    return dataclasses.replace(record, adopted=True)


def is_another(recorded: Path, path: Path) -> bool:
    """Whether the file that was recorded is still there, apart from this one."""
    return recorded.is_file() and not same_content(recorded, path)


def same_content(one: Path, other: Path) -> bool:
    """Whether two files are one, or equal; whether both are absent."""
    if not (one.exists() and other.exists()):
        return one.exists() == other.exists()
    return one.samefile(other) or filecmp.cmp(one, other, shallow=False)


def refuse_shared_names(datasets: Sequence[Mapping[str, Path]]) -> None:
    """Refuse different images of one name in several datasets.

    Args:
        datasets: files by image name.

    Raises:
        DatasetError: naming an image and both of its files.
    """
    first: dict[str, Path] = {}
    clashes = [
        (name, first[name], path)
        for images in datasets
        for name, path in images.items()
        if first.setdefault(name, path) != path and not same_content(first[name], path)
    ]
    if clashes:
        raise two_of_one_name(clashes)


def refuse_clashing_records(folders: Sequence[Path]) -> None:
    """Refuse folders of features of different images of one name.

    Features of a file that is gone, or of what one file was before, are passed over.

    Args:
        folders: with the records of their images, see image_records.

    Raises:
        DatasetError: naming an image and both of its files.
    """
    if len(folders) < 2:
        return
    first: dict[str, ImageRecord] = {}
    clashes = []
    for folder in folders:
        for name, record in read_records(folder).items():
            if record is None:
                continue
            other = first.setdefault(name, record)
            if other.sha256 != record.sha256 and other.path != record.path:
                files = Path(other.path), Path(record.path)
                if all(path.is_file() for path in files) and not same_content(*files):
                    clashes.append((name, *files))
    if clashes:
        raise two_of_one_name(clashes)


def two_of_one_name(
    found: Sequence[tuple[str, Path, Path]], otherwise: str = ""
) -> DatasetError:
    """Say that two images have one name, and the way out.

    Args:
        found: name and both files; the first is said, the others are counted.
        otherwise: another way out than to rename one.
    """
    name, one, other = found[0]
    more = f", and of {len(found) - 1} more names" if len(found) > 1 else ""
    return DatasetError(
        f"{shown(str(one))} and {shown(str(other))}: found two images of one name "
        f"'{shown(name)}'{more}, by which features and matches are kept; rename one, "
        f"for instance into a sub-folder{otherwise}"
    )
