"""The list of pairs: merged, cut, resumed, guarded."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from r2d2_kapture.config.pairs import PairsConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.errors import ConfigError, DatasetError, OutputError
from r2d2_kapture.io.kapture.pairs import ImagePair, read_pairs, write_pairs
from r2d2_kapture.stages.pairs import stage as pairs
from tests.scenes.kapture_files import write_dataset, write_global_features
from tests.stages.pair_runs import NAMES, names_in, run


@pytest.fixture
def mapping(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "mapping", NAMES)


def test_merging_keeps_the_first_of_a_pair(mapping: Path, tmp_path: Path) -> None:
    a, b, c, d, e = sorted(NAMES)
    one = [ImagePair(image1=b, image2=a, score=0.2), ImagePair(image1=a, image2=c)]
    two = [ImagePair(image1=a, image2=b, score=0.9), ImagePair(image1=d, image2=e)]
    write_pairs(tmp_path / "1.txt", one)
    write_pairs(tmp_path / "2.txt", two)
    merge = [tmp_path / "1.txt", tmp_path / "2.txt"]
    run(mapping, tmp_path / "p.txt", method="merge", merge=merge)
    assert read_pairs(tmp_path / "p.txt") == [one[1], one[0], two[1]]
    run(mapping, tmp_path / "e.txt", merge=merge)
    assert {pair.score for pair in read_pairs(tmp_path / "e.txt")} == {1}
    with pytest.raises(ConfigError, match="found no --merge"):
        run(mapping, tmp_path / "x.txt", method="merge")
    with pytest.raises(DatasetError, match="found no such file"):
        run(mapping, tmp_path / "x.txt", method="merge", merge=[tmp_path / "3.txt"])


def test_the_best_of_merged_lists(mapping: Path, tmp_path: Path) -> None:
    listed = [
        ImagePair(image1="q", image2=f"{i}", score=score)
        for i, score in enumerate([0.1, 0.9, 0.5])
    ]
    write_pairs(tmp_path / "1.txt", [*listed, ImagePair(image1="r", image2="0")])
    merge = [tmp_path / "1.txt"]
    run(mapping, tmp_path / "p.txt", method="merge", merge=merge, top_k=2)
    assert names_in(tmp_path / "p.txt") == [("q", "1"), ("q", "2"), ("r", "0")]


def test_all_of_merged_lists_unless_asked(mapping: Path, tmp_path: Path) -> None:
    listed = [ImagePair(image1="q", image2=f"{i:02d}") for i in range(30)]
    write_pairs(tmp_path / "1.txt", listed)
    merge = [tmp_path / "1.txt"]
    for top_k, expected in ((None, 30), (0, 30), (20, 20)):
        path = tmp_path / f"{top_k}.txt"
        run(mapping, path, method="merge", merge=merge, top_k=top_k)
        assert len(names_in(path)) == expected


def test_the_best_of_each_image_though_another_chose_it_too(
    mapping: Path, tmp_path: Path
) -> None:
    """b keeps its best, a, whom a list of a's gives only as its second."""
    one = [ImagePair(image1="a", image2=image) for image in "cb"]
    two = [ImagePair(image1="b", image2="a", score=0.5)]
    one[1] = dataclasses.replace(one[1], score=0.5)
    write_pairs(tmp_path / "1.txt", one)
    write_pairs(tmp_path / "2.txt", two)
    merge = [tmp_path / "1.txt", tmp_path / "2.txt"]
    run(mapping, tmp_path / "p.txt", method="merge", merge=merge, top_k=1)
    assert names_in(tmp_path / "p.txt") == [("a", "c"), ("b", "a")]


def test_queries_that_are_mapping_images_have_their_best(
    mapping: Path, tmp_path: Path
) -> None:
    angles = {name: 0.3 * i**1.5 for i, name in enumerate(NAMES)}
    rows = {
        name: np.array([[np.cos(angle), np.sin(angle)]], np.float32)
        for name, angle in angles.items()
    }
    write_global_features(mapping, rows)
    path = tmp_path / "p.txt"
    run(mapping, path, query=mapping, method="global", top_k=2)
    found = {frozenset(names) for names in names_in(path)}
    assert len(found) == len(names_in(path))
    for name, angle in angles.items():
        others = sorted(set(NAMES) - {name}, key=lambda n: abs(angles[n] - angle))
        assert {frozenset({name, other}) for other in others[:2]} <= found


def test_lists_of_one_stem_are_each_written(mapping: Path, tmp_path: Path) -> None:
    for name in ("p.txt", "p.csv"):
        run(mapping, tmp_path / name)
    assert names_in(tmp_path / "p.csv") == names_in(tmp_path / "p.txt")


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_in_the_way(mapping: Path, tmp_path: Path, force: bool) -> None:
    with pytest.raises(
        OutputError, match="found a folder, expected a file .*pairs.txt"
    ):
        run(mapping, tmp_path, options=RunOptions(force=force))


@pytest.mark.parametrize("parts", [1, 3, 10, 13])
def test_slices_are_the_whole_list(mapping: Path, tmp_path: Path, parts: int) -> None:
    run(mapping, tmp_path / "all.txt")
    found = []
    for part in range(1, parts + 1):
        run(mapping, tmp_path / f"{part}.txt", slice=f"{part}/{parts}")
        found.append(names_in(tmp_path / f"{part}.txt"))
    assert sum(found, []) == names_in(tmp_path / "all.txt")
    assert max(map(len, found)) - min(map(len, found)) <= 1


def test_a_list_follows_its_inputs(mapping: Path, tmp_path: Path) -> None:
    run(mapping, tmp_path / "p.txt")
    write_dataset(mapping, [*NAMES, "new.jpg"])
    assert run(mapping, tmp_path / "p.txt").done == 15


def test_a_list_of_the_users_own_is_not_replaced(mapping: Path, tmp_path: Path) -> None:
    path = tmp_path / "p.txt"
    run(mapping, path)
    path.write_text(path.read_text("utf-8") + "a, b, 1\n", "utf-8")
    with pytest.raises(OutputError, match="edited or made by another tool"):
        run(mapping, path)
    assert ("a", "b") in names_in(path)
    (tmp_path / "p.report.json").unlink()
    with pytest.raises(OutputError, match="edited or made by another tool"):
        run(mapping, path)


@pytest.mark.parametrize("there", [False, True])
def test_a_list_half_made_is_made_again(
    mapping: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    if there:
        run(mapping, tmp_path / "p.txt")
        write_dataset(mapping, [*NAMES, "new.jpg"])

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pairs, "write_pairs", killed)
        with pytest.raises(KeyboardInterrupt):
            run(mapping, tmp_path / "p.txt")
    assert run(mapping, tmp_path / "p.txt").done == (15 if there else 10)


def test_an_empty_dataset(tmp_path: Path) -> None:
    mapping = write_dataset(tmp_path / "m", [])
    with pytest.raises(DatasetError, match="lists no image; nothing to pair"):
        run(mapping, tmp_path / "p.txt")
    with pytest.raises(DatasetError, match="nothing there"):
        run(tmp_path / "nowhere", tmp_path / "p.txt")


def test_names_that_no_list_holds_are_left_out(mapping: Path, tmp_path: Path) -> None:
    path = mapping / "sensors/records_camera.txt"
    path.write_text(path.read_text("utf-8") + "\n9, cam, a,b.jpg\n", "utf-8")
    report = run(mapping, tmp_path / "p.txt")
    (failure,) = report.failed
    assert "'a, b.jpg' holds a comma" in failure.reason
    assert len(names_in(tmp_path / "p.txt")) == 10
    hashed = write_dataset(tmp_path / "hashed", ["#1.jpg", "2.jpg", "3.jpg"])
    report = run(hashed, tmp_path / "q.txt")
    assert [failure.name for failure in report.failed] == ["#1.jpg"]
    assert names_in(tmp_path / "q.txt") == [("2.jpg", "3.jpg")]


@pytest.mark.parametrize(
    "settings, flag",
    [
        ({"method": "guess"}, "--method"),
        ({"top_k": -1}, "--top-k"),
        ({"overlap": 0}, "--overlap"),
        ({"max_distance": 0.0}, "--max-distance"),
        ({"max_angle": 181.0}, "--max-angle"),
        ({"vlad_clusters": 0}, "--vlad-clusters"),
        ({"vlad_dim": -1}, "--vlad-dim"),
        ({"seed": -1}, "--seed"),
        ({"slice": "0/3"}, "--slice"),
        ({"slice": "4/3"}, "--slice"),
        ({"slice": "half"}, "--slice"),
    ],
)
def test_settings_out_of_range(settings: dict[str, object], flag: str) -> None:
    with pytest.raises(ConfigError, match=flag):
        PairsConfig(**settings)  # type: ignore[arg-type]
