"""Tables of a kapture dataset written whole, each left alone where it is the same."""

from __future__ import annotations

import tempfile
from pathlib import Path

import kapture
import kapture.io.csv as kcsv

from r2d2_kapture.io.outputs.atomic import write_bytes_atomic


def write_tables(root: Path, data: kapture.Kapture) -> None:
    """Write the tables of a dataset (sensors, records, poses, ...), not its features.

    Args:
        root: of the dataset.
        data: what to write; parts that are None are left as they are.

    Raises:
        OutputError: the file system refused.
    """
    with tempfile.TemporaryDirectory(prefix="r2d2_kapture_") as scratch:
        kcsv.kapture_to_dir(scratch, data)
        for table in sorted(Path(scratch).rglob("*.txt")):
            write_bytes_atomic(root / table.relative_to(scratch), table.read_bytes())
