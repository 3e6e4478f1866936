"""Accuracy on pairs whose truth is known by construction."""

from pathlib import Path

import numpy as np
import pytest

from r2d2_kapture.errors import DatasetError, FeatureFormatError
from r2d2_kapture.evaluation import homography as hpatches
from r2d2_kapture.types import LocalFeatures

H_2_FROM_1 = np.array([[0.9, 0.1, 12.0], [-0.05, 1.1, -7.0], [1e-4, 2e-4, 1.0]])


def features_at(keypoints, descriptors):
    count = len(keypoints)
    return LocalFeatures(
        keypoints=np.asarray(keypoints, dtype=np.float32),
        scales=np.full(count, 32, dtype=np.float32),
        scores=np.ones(count, dtype=np.float32),
        descriptors=np.asarray(descriptors, dtype=np.float32),
        image_size=(640, 480),
    )


def project(points, homography):
    projected = np.column_stack([points, np.ones(len(points))]) @ homography.T
    return projected[:, :2] / projected[:, 2:]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def displaced_pair(rng):
    """Ten points and their images, displaced by 0.5, 1.5 ... 9.5 px and shuffled."""
    points = rng.uniform(0, 400, (10, 2))
    angles = rng.uniform(0, 2 * np.pi, 10)
    offsets = np.column_stack([np.cos(angles), np.sin(angles)])
    displacements = np.arange(10) + 0.5
    moved = project(points, H_2_FROM_1) + offsets * displacements[:, None]
    descriptors = np.eye(16)[:10]
    order = rng.permutation(10)
    return (
        features_at(points, descriptors),
        features_at(moved[order], descriptors[order]),
        displacements,
    )


def write_sequence(folder: Path, *, images=(1, 2, 3), homographies=(2, 3), suffix):
    folder.mkdir(parents=True)
    for number in images:
        (folder / f"{number}{suffix}").touch()
    for number in homographies:
        np.savetxt(folder / f"H_1_{number}", H_2_FROM_1 * number)
    return folder


@pytest.mark.parametrize("suffix", [".ppm", ".png", ".jpg", ".PNG"])
def test_read_sequence(tmp_path, suffix):
    folder = write_sequence(tmp_path / "v_wall", suffix=suffix)
    (folder / "notes.txt").touch()
    (folder / "e1.png").touch()
    sequence = hpatches.read_sequence(folder)
    assert (sequence.name, sequence.kind) == ("v_wall", "viewpoint")
    assert [path.name for path in sequence.images] == [
        f"{k}{suffix}" for k in (1, 2, 3)
    ]
    assert [h.dtype for h in sequence.homographies] == [np.float64] * 2
    np.testing.assert_allclose(sequence.homographies[1], H_2_FROM_1 * 3)


def test_sequence_of_ten_images_is_in_numeric_order(tmp_path):
    folder = write_sequence(
        tmp_path / "i_lamp",
        images=range(1, 11),
        homographies=range(2, 11),
        suffix=".png",
    )
    sequence = hpatches.read_sequence(folder)
    assert sequence.kind == "illumination"
    assert [path.stem for path in sequence.images] == [str(k) for k in range(1, 11)]


@pytest.mark.parametrize(
    ("images", "homographies", "message"),
    [
        ((1, 2, 3), (2,), "missing H_1_3"),
        ((1, 3), (2, 3), "missing image 2"),
        ((2, 3), (2, 3), "missing image 1"),
        ((1,), (), "missing image 2, H_1_2"),
        ((), (), "missing image 1, image 2, H_1_2"),
    ],
)
def test_missing_files_are_named(tmp_path, images, homographies, message):
    folder = write_sequence(
        tmp_path / "v_wall", images=images, homographies=homographies, suffix=".png"
    )
    with pytest.raises(DatasetError, match=message):
        hpatches.read_sequence(folder)


@pytest.mark.parametrize("text", ["", "1 0 0 0 1 0", "1 0 0 0 1 0 0 0 x", "nan " * 9])
def test_a_broken_homography_is_named(tmp_path, text):
    folder = write_sequence(tmp_path / "v_wall", suffix=".png")
    (folder / "H_1_3").write_text(text)
    with pytest.raises(DatasetError, match="H_1_3"):
        hpatches.read_sequence(folder)


def test_one_image_number_twice_is_refused(tmp_path):
    folder = write_sequence(tmp_path / "v_wall", suffix=".png")
    (folder / "2.ppm").touch()
    with pytest.raises(DatasetError, match="2.png and 2.ppm"):
        hpatches.read_sequence(folder)


def test_a_name_without_prefix_or_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="wall"):
        hpatches.read_sequence(write_sequence(tmp_path / "wall", suffix=".png"))
    with pytest.raises(DatasetError, match="v_none"):
        hpatches.read_sequence(tmp_path / "v_none")


def test_read_sequences_sorts_and_needs_one(tmp_path):
    with pytest.raises(DatasetError, match=str(tmp_path)):
        hpatches.read_sequences(tmp_path)
    for name in ("v_b", "i_z", "v_a"):
        write_sequence(tmp_path / name, suffix=".png")
    (tmp_path / "other").mkdir()
    names = [sequence.name for sequence in hpatches.read_sequences(tmp_path)]
    assert names == ["i_z", "v_a", "v_b"]


@pytest.mark.parametrize("block_rows", [1, 7, 1000])
def test_mutual_nearest_neighbours_equal_the_plain_definition(
    rng, monkeypatch, block_rows
):
    monkeypatch.setattr(hpatches, "BLOCK_ROWS", block_rows)
    first, second = (rng.standard_normal((n, 8)).astype(np.float32) for n in (40, 55))
    similarity = first @ second.T
    expected = [
        (i, j)
        for i in range(40)
        for j in range(55)
        if similarity[i].argmax() == j and similarity[:, j].argmax() == i
    ]
    matches = hpatches.mutual_nearest_neighbours(first, second)
    assert matches.dtype == np.int64
    assert [tuple(match) for match in matches] == expected


def test_a_one_sided_neighbour_is_no_match():
    first = np.array([[1, 0], [0.8, 0.6]], dtype=np.float32)
    second = np.array([[1, 0]], dtype=np.float32)
    matches = hpatches.mutual_nearest_neighbours(first, second)
    np.testing.assert_array_equal(matches, [[0, 0]])


@pytest.mark.parametrize("block_rows", [1, 1000])
def test_equal_similarities_go_to_the_lower_row(monkeypatch, block_rows):
    monkeypatch.setattr(hpatches, "BLOCK_ROWS", block_rows)
    same = np.ones((3, 2), dtype=np.float32)
    matches = hpatches.mutual_nearest_neighbours(same, same)
    np.testing.assert_array_equal(matches, [[0, 0]])


def test_descriptors_of_two_sizes_are_refused():
    first, second = np.ones((2, 8), np.float32), np.ones((2, 16), np.float32)
    with pytest.raises(FeatureFormatError, match=r"\(2, 8\) and \(2, 16\)"):
        hpatches.mutual_nearest_neighbours(first, second)


def test_errors_are_the_known_displacements(displaced_pair):
    first, second, displacements = displaced_pair
    matches = hpatches.mutual_nearest_neighbours(first.descriptors, second.descriptors)
    errors = hpatches.matching_errors(first, second, matches, H_2_FROM_1)
    np.testing.assert_allclose(errors, displacements, atol=1e-4)
    np.testing.assert_allclose(
        hpatches.mma(errors, hpatches.THRESHOLDS), np.arange(1, 11) / 10
    )


def test_the_scale_and_sign_of_a_homography_do_not_matter(displaced_pair):
    first, second, _ = displaced_pair
    matches = hpatches.mutual_nearest_neighbours(first.descriptors, second.descriptors)
    np.testing.assert_allclose(
        hpatches.matching_errors(first, second, matches, H_2_FROM_1),
        hpatches.matching_errors(first, second, matches, -3 * H_2_FROM_1),
    )


def test_a_point_at_infinity_has_infinite_error():
    features = features_at([[1, 0], [2, 0]], np.eye(2))
    homography = np.array([[1.0, 0, 0], [0, 1, 0], [1, 0, -1]])
    errors = hpatches.matching_errors(
        features, features, np.array([[0, 0], [1, 1]]), homography
    )
    np.testing.assert_array_equal(errors, [np.inf, 0])


def test_an_error_equal_to_the_threshold_is_correct():
    errors = np.array([1.0, 2.0, np.inf])
    np.testing.assert_allclose(hpatches.mma(errors, [0.5, 1, 2]), [0, 1 / 3, 2 / 3])


def test_no_matches_give_zero():
    np.testing.assert_array_equal(hpatches.mma(np.empty(0), [1, 3]), [0, 0])


def test_mean_over_pairs_weighs_pairs_equally():
    mean = hpatches.mean_matching_accuracy([np.array([0.0, 1.0]), np.array([0.5, 1.0])])
    np.testing.assert_allclose(mean, [0.25, 1.0])
    with pytest.raises(DatasetError, match="no image pair"):
        hpatches.mean_matching_accuracy([])


def test_evaluate_sequence(displaced_pair):
    first, second, _ = displaced_pair
    by_path = {
        Path("1.png"): first,
        Path("2.png"): second,
        Path("3.png"): features_at(np.empty((0, 2)), np.empty((0, 16))),
    }
    sequence = hpatches.HomographySequence(
        name="v_wall", images=tuple(by_path), homographies=(H_2_FROM_1, np.eye(3))
    )
    near, empty = hpatches.evaluate_sequence(sequence, by_path.__getitem__)
    assert (near.sequence, near.image, near.matches) == ("v_wall", 2, 10)
    assert near.features == (10, 10)
    np.testing.assert_allclose(near.mma, np.arange(1, 11) / 10)
    assert (empty.image, empty.features, empty.matches) == (3, (10, 0), 0)
    np.testing.assert_array_equal(empty.mma, np.zeros(10))


def test_evaluate_sequence_with_other_thresholds(displaced_pair):
    first, second, _ = displaced_pair
    sequence = hpatches.HomographySequence(
        name="i_lamp", images=(Path("1"), Path("2")), homographies=(H_2_FROM_1,)
    )
    (result,) = hpatches.evaluate_sequence(
        sequence, {Path("1"): first, Path("2"): second}.__getitem__, thresholds=(1, 3)
    )
    np.testing.assert_allclose(result.mma, [0.1, 0.3])


@pytest.mark.parametrize("counts", [(1, 0), (3, 1), (0, 0)])
def test_a_sequence_checks_its_counts(counts):
    images, homographies = counts
    with pytest.raises(DatasetError, match="expected n and n - 1"):
        hpatches.HomographySequence(
            name="v_wall",
            images=(Path("1"),) * images,
            homographies=(np.eye(3),) * homographies,
        )


@pytest.mark.shared
@pytest.mark.parametrize(
    ("group", "count", "images"),
    [("hpatches", 3, 6), ("homogr", 6, 2), ("iguazu_noise", 1, 6)],
)
def test_real_sequences_are_read(shared, group, count, images):
    sequences = hpatches.read_sequences(shared / "data" / "homography" / group)
    assert [len(sequence.images) for sequence in sequences] == [images] * count
