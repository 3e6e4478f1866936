"""Global features of a kapture dataset: one float32 row an image.

kapture 1.1 (github.com/naver/kapture, kapture_format.adoc): a raw little-endian file an
image, ``<image>.gfeat``, or a member of its archive, and global_features.txt that holds
type and width.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import kapture
import kapture.io.csv as kcsv
import numpy as np

from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.config.stores import Store
from r2d2_kapture.io.kapture.dataset import is_described
from r2d2_kapture.io.kapture.feature_table import SUFFIXES
from r2d2_kapture.io.kapture.followed_features import STATES_NAME
from r2d2_kapture.io.outputs.atomic import atomic_path
from r2d2_kapture.io.outputs.ledger import Contents, open_ledger
from r2d2_kapture.io.outputs.manifest import Manifest
from r2d2_kapture.io.stores.shards import SHARD_FILES
from r2d2_kapture.io.stores.writing import (
    ItemWriter,
    open_item_writer,
    replaces_layout,
)
from r2d2_kapture.types import FloatArray

SUFFIX = SUFFIXES["global_features"]
ARCHIVE_NAME = "global_features.tar"
CONTENTS = Contents(
    what="global features",
    files=(
        *(f"**/*{SUFFIX}", "global_features.t*", *SHARD_FILES),
        *(STATES_NAME, "*.safetensors"),
    ),
    by_name=True,
)


@dataclass(frozen=True, kw_only=True)
class GlobalFeatureWriter:
    """Writes the rows of images, each whole or not at all.

    Attributes:
        folder: of the type.
        items: the rows in it.
        dsize: numbers of a row.
        emptied: see open_ledger.
    """

    folder: Path
    items: ItemWriter
    dsize: int
    emptied: bool

    def is_complete(self, image: str) -> bool:
        """Whether the row of an image is there."""
        return self.items.size(image + SUFFIX) == 4 * self.dsize

    def remove_all(self) -> None:
        """Remove the rows of all images.

        Raises:
            OutputError: the file system refused.
        """
        self.items.remove(frozenset(self.items.names()))

    def remove(self, images: Iterable[str]) -> None:
        """Remove the rows of images, some of which may have none.

        Raises:
            OutputError: the file system refused.
        """
        self.items.remove(frozenset(image + SUFFIX for image in images))

    def write(self, image: str, row: FloatArray) -> None:
        """Store the (dsize,) row of an image.

        Raises:
            OutputError: the file system refused.
        """
        self.items.write(image + SUFFIX, row.astype("<f4").tobytes())


@contextmanager
def open_global_feature_writer(
    root: Path,
    type_name: str,
    dsize: int,
    manifest: Manifest,
    options: RunOptions = RunOptions(),
    store: Store = "files",
) -> Iterator[GlobalFeatureWriter]:
    """Open a type of global features in a kapture folder for one set of settings.

    Args:
        root: kapture dataset, or a folder to make.
        type_name: of the features.
        dsize: numbers of a row.
        manifest, options: see open_ledger.
        store: layout of the rows.

    Raises:
        OutputError, FeatureFormatError: see open_ledger.
        OutputError: there are rows in another layout, without ``force``.
    """
    folder = root / "reconstruction" / "global_features" / type_name
    anew = replaces_layout(
        folder, store, ARCHIVE_NAME, SUFFIX, CONTENTS, manifest, options
    )
    with (
        open_ledger(folder, CONTENTS, manifest, options, anew=anew) as emptied,
        open_item_writer(folder, store, ARCHIVE_NAME, SUFFIX) as items,
    ):
        config = folder / "global_features.txt"
        if not is_described(config, type_name, "float32", str(dsize), "L2"):
            features = kapture.GlobalFeatures(type_name, np.float32, dsize, "L2")
            with atomic_path(config) as path:
                kcsv.global_features_to_file(str(path), features)
        yield GlobalFeatureWriter(
            folder=folder, items=items, dsize=dsize, emptied=emptied
        )
