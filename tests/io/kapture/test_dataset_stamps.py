"""The files that a finished run looks at are those of the dataset it was made of."""

from __future__ import annotations

from pathlib import Path

from r2d2_kapture.io.kapture.dataset import open_dataset
from r2d2_kapture.io.kapture.dataset_stamps import stamped_files
from tests.scenes.street import Street


def test_they_are_those_of_the_checked_dataset(tmp_path: Path) -> None:
    root = tmp_path / "a dätaset"
    Street(images=3).write(tmp_path)
    (tmp_path / "mapping").rename(root)
    records = root / "sensors" / "records_camera.txt"
    text = records.read_text("utf-8").replace("0/00001", "Straße 1/b c")
    records.write_text(text, "utf-8")
    dataset = open_dataset(root)
    expected = sorted(dataset.files)
    assert sum("b c" in name for name in expected)
    assert sorted(stamped_files(root)) == sorted(stamped_files(dataset)) == expected


def test_a_broken_dataset_is_none_of_their_concern(tmp_path: Path) -> None:
    """It is refused as it is opened."""
    assert not [*stamped_files(tmp_path / "missing")]
    records = tmp_path / "sensors" / "records_camera.txt"
    records.parent.mkdir()
    records.write_bytes(b"# kapture\n1, cam\n2, cam, \xff.jpg\n3, cam, a\0b\n")
    found = [*stamped_files(tmp_path)]
    assert [Path(name).name for name in found] == ["records_camera.txt", "\udcff.jpg"]
