"""Which files of a dataset a finished run looks at, to see whether one has changed."""

from __future__ import annotations

import os
from collections.abc import Iterator

from kapture.io.records import get_record_fullpath

from r2d2_kapture.io.kapture.dataset import Dataset, DatasetOrPath


def stamped_files(dataset: DatasetOrPath) -> Iterator[str]:
    """The files whose change a finished run must notice, read as fast as it can be.

    Tables and image files, as ``Dataset.files``, but of a dataset that was not checked:
    if they are as they were when a run ended, it was checked then.
    """
    folder = dataset.root if isinstance(dataset, Dataset) else dataset
    yield from sorted(map(str, (folder / "sensors").glob("*.*")))
    root = os.path.join(os.fsencode(get_record_fullpath(str(folder))), b"")
    try:
        records = (folder / "sensors" / "records_camera.txt").read_bytes()
    except OSError:
        return
    for line in records.splitlines():
        fields = line.split(b",", 2)
        if len(fields) == 3 and not line.startswith(b"#") and b"\0" not in line:
            yield os.fsdecode(root + fields[2].strip())
