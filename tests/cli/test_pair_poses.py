"""kapture_r2d2_pair_poses as a user types it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from r2d2_kapture.cli.extract import main as extract
from r2d2_kapture.cli.pair_poses import main
from r2d2_kapture.evaluation.pair_results import load_run
from r2d2_kapture.evaluation.posed_images import read_posed_dataset
from r2d2_kapture.synthetic.dataset import write_room_dataset
from tests.commands import one_error_line, work_in

pytestmark = pytest.mark.usefixtures("empty_pictures")

FLAGS = ["--reliability-thr", "0", "--repeatability-thr", "0", "--min-size", "64"]
FLAGS += ["--gpu", "-1", "--precision", "fp32", "--top-k", "50"]
NO_PICTURES = ["--worst-pairs", "0"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three photographs of the room with their true poses."""
    folder = tmp_path_factory.mktemp("room")
    return write_room_dataset(
        folder, mapping_images=3, query_images=1, image_size=(96, 72)
    ).mapping


@pytest.fixture
def model(checkpoint_path: Path) -> list[str]:
    return ["--model", str(checkpoint_path), *FLAGS]


def write_ground_truth(dataset: Path, path: Path) -> Path:
    """The poses of a dataset as gt.json, beside its images."""
    images = [
        {
            "name": image.name,
            "K": np.diag([72.0, 72.0, 1.0]).tolist(),
            "dist": [],
            "R": image.cam_from_world.rotation.matrix().tolist(),
            "t": image.cam_from_world.translation.tolist(),
        }
        for image in read_posed_dataset(dataset).images
    ]
    for image in images:
        image["K"][0][2], image["K"][1][2] = 47.5, 35.5  # type: ignore[index]
    path.write_text(json.dumps({"images": images}))
    return path


def test_a_kapture_dataset_and_its_ground_truth_file_agree(
    dataset: Path, model: list[str], tmp_path: Path
) -> None:
    gt = write_ground_truth(dataset, dataset / "sensors" / "records_data" / "gt.json")
    for name, images in (
        ("kapture", ["--kapture-root", str(dataset)]),
        ("gt", ["--gt", str(gt)]),
    ):
        output = ["--output", str(tmp_path / name)]
        assert main([*images, *output, *model, *NO_PICTURES]) == 0
    ours, theirs = (
        load_run(tmp_path / name / "tiny.poses.json").pairs
        for name in ("kapture", "gt")
    )
    for one, other in zip(ours, theirs, strict=True):
        assert (one.image1, one.image2, one.matches) == (
            other.image1,
            other.image2,
            other.matches,
        )
        np.testing.assert_allclose(one.epipolar, other.epipolar)


def test_images_without_pose_are_reported(
    dataset: Path, model: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(dataset / "sensors", tmp_path / "m" / "sensors")
    poses = tmp_path / "m" / "sensors" / "trajectories.txt"
    poses.write_text("\n".join(poses.read_text().splitlines()[:-1]))
    command = ["--kapture-root", str(tmp_path / "m"), *NO_PICTURES, *model]
    assert main([*command, "--output", str(tmp_path / "out")]) == 0
    told = f"warning: 1 images of {tmp_path / 'm'} have no pose and are left out: '"
    assert told in capsys.readouterr().out


def test_features_of_the_dataset_are_evaluated(
    dataset: Path, model: list[str], tmp_path: Path
) -> None:
    copy = tmp_path / "mapping"
    copy.mkdir()
    (copy / "sensors").symlink_to(dataset / "sensors")
    assert extract(["--kapture-root", str(copy), *model]) == 0
    command = ["--kapture-root", str(copy), *NO_PICTURES]
    stored = ["--keypoints-type", "tiny", "--label", "stored"]
    output = ["--output", str(tmp_path / "out")]
    assert main([*command, *output, *stored]) == 0
    assert main([*command, *output, *model]) == 0
    runs = [
        load_run(tmp_path / "out" / f"{name}.poses.json") for name in ("stored", "tiny")
    ]
    assert runs[0].pairs == runs[1].pairs
    assert runs[0].manifest["settings"]["top_k"] == 50


@pytest.mark.parametrize("tar", [[], ["--tar"]])
def test_features_of_the_dataset_that_change_are_evaluated_again(
    dataset: Path,
    model: list[str],
    tmp_path: Path,
    tar: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    copy = tmp_path / "mapping"
    copy.mkdir()
    (copy / "sensors").symlink_to(dataset / "sensors")
    place = ["--kapture-root", str(copy)]
    command = [*place, *model]
    assert extract([*command, *tar]) == 0
    stored = [*place, *NO_PICTURES, "--keypoints-type", "tiny"]
    stored += ["--output", str(tmp_path / "out")]
    assert main(stored) == 0
    # the same features, written anew
    assert extract([*command, *tar, "--force"]) == 0
    capsys.readouterr()
    assert main(stored) == 0
    assert work_in(capsys.readouterr().out, "pair_poses") == "3 pairs"
    assert extract([*command, *tar, "--force", "--top-k", "30"]) == 0
    assert main(stored) == 2
    assert "top_k: 50, not 30" in capsys.readouterr().err
    assert main([*stored, "--force"]) == 0
    (summary,) = json.loads((tmp_path / "out" / "pair_poses.json").read_text())
    assert summary["means"]["features"] == 30


def test_rivals_are_in_one_table(
    dataset: Path,
    model: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = ["--kapture-root", str(dataset), "--output", str(tmp_path), *model]
    command += [*NO_PICTURES, "--rivals", "sift"]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert [line.split()[1] for line in out.splitlines()[2:4]] == ["tiny", "sift"]
    rival = load_run(tmp_path / "sift.poses.json")
    assert len(rival.pairs) == 3 and rival.values["matches"] > 0
    assert main(command) == 0
    assert work_in(capsys.readouterr().out, "pair_poses") == "6 pairs, already done"


def test_pairs_of_a_file(dataset: Path, model: list[str], tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.txt"
    pairs.write_text("mapping/0002.jpg, mapping/0000.jpg, 1\n")
    command = ["--kapture-root", str(dataset), *model, *NO_PICTURES]
    command += ["--output", str(tmp_path / "out")]
    assert main([*command, "--pairs-file", str(pairs)]) == 0
    (pair,) = load_run(tmp_path / "out" / "tiny.poses.json").pairs
    assert (pair.image1, pair.image2) == ("mapping/0002.jpg", "mapping/0000.jpg")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--gt /no.json --output {out}", "/no.json"),
        ("--gt {gt} --kapture-root {root} --output {out}", "expected one of them"),
        ("--kapture-root {root} --output {out} --keypoints-type none", "'none'"),
        (
            "--kapture-root {root} --output {out} --keypoints-type tiny --extractor "
            "d2net",
            "--extractor: describes an extraction, but --keypoints-type uses",
        ),
        (
            "--kapture-root {root} --output {out} --keypoints-type tiny "
            "--features-h5 {root}",
            "--features-h5 and --keypoints-type: expected one of them",
        ),
        ("--gt {gt} --output {out} --keypoints-type tiny", "with --kapture-root"),
        ("--kapture-root {root} --output {out} --max-pairs -1", "--max-pairs"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    dataset: Path,
    tmp_path: Path,
    arguments: str,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    gt = write_ground_truth(dataset, dataset / "sensors" / "records_data" / "gt.json")
    typed = arguments.format(root=dataset, out=tmp_path / "out", gt=gt).split()
    assert main(typed) == 2
    assert message in one_error_line(capsys)
