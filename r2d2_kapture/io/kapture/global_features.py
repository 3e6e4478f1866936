"""Global features of a kapture dataset: one float32 row an image.

kapture 1.1 (github.com/naver/kapture, kapture_format.adoc): a raw little-endian file an
image, ``<image>.gfeat``, and global_features.txt that holds type and width.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import kapture
import kapture.io.csv as kcsv
import numpy as np

from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.io.kapture.dataset import check_relative_name, is_described
from r2d2_kapture.io.kapture.feature_table import SUFFIXES
from r2d2_kapture.io.kapture.followed_features import STATES_NAME
from r2d2_kapture.io.outputs.atomic import atomic_path, remove_file
from r2d2_kapture.io.outputs.atomic_folder import owned
from r2d2_kapture.io.outputs.ledger import Contents, open_ledger, write_item
from r2d2_kapture.io.outputs.manifest import Manifest
from r2d2_kapture.types import FloatArray

SUFFIX = SUFFIXES["global_features"]
CONTENTS = Contents(
    what="global features",
    files=(f"**/*{SUFFIX}", STATES_NAME, "global_features.t*", "*.safetensors"),
    by_name=True,
)


@dataclass(frozen=True, kw_only=True)
class GlobalFeatureWriter:
    """Writes the row of an image, one whole file each.

    Attributes:
        folder: of the type.
        dsize: numbers of a row.
        emptied: see open_ledger.
    """

    folder: Path
    dsize: int
    emptied: bool

    def is_complete(self, image: str) -> bool:
        """Whether the row of an image is there."""
        try:
            return self._path(image).stat().st_size == 4 * self.dsize
        except OSError:
            return False

    def remove_all(self) -> None:
        """Remove the rows of all images.

        Raises:
            OutputError: the file system refused.
        """
        for path in owned(self.folder, [f"**/*{SUFFIX}"]):
            remove_file(path)

    def remove(self, image: str) -> None:
        """Remove the row of an image, which may have none.

        Raises:
            OutputError: the file system refused.
        """
        remove_file(self._path(image))

    def write(self, image: str, row: FloatArray) -> None:
        """Store the (dsize,) row of an image.

        Raises:
            OutputError: the file system refused.
        """
        write_item(self.folder, self._path(image), row.astype("<f4").tobytes())

    def _path(self, image: str) -> Path:
        return self.folder / (check_relative_name(image, self.folder) + SUFFIX)


@contextmanager
def open_global_feature_writer(
    root: Path,
    type_name: str,
    dsize: int,
    manifest: Manifest,
    options: RunOptions = RunOptions(),
) -> Iterator[GlobalFeatureWriter]:
    """Open a type of global features in a kapture folder for one set of settings.

    Args:
        root: kapture dataset, or a folder to make.
        type_name: of the features.
        dsize: numbers of a row.
        manifest, options: see open_ledger.

    Raises:
        OutputError, FeatureFormatError: see open_ledger.
    """
    folder = root / "reconstruction" / "global_features" / type_name
    with open_ledger(folder, CONTENTS, manifest, options) as emptied:
        config = folder / "global_features.txt"
        if not is_described(config, type_name, "float32", str(dsize), "L2"):
            features = kapture.GlobalFeatures(type_name, np.float32, dsize, "L2")
            with atomic_path(config) as path:
                kcsv.global_features_to_file(str(path), features)
        yield GlobalFeatureWriter(folder=folder, dsize=dsize, emptied=emptied)
