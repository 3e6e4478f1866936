"""Evaluation from files to files: figures, missing images, bad input, running again."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from r2d2_kapture.config.evaluate import EvaluateConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.errors import ConfigError, DatasetError, OutputError
from r2d2_kapture.io.colmap.sparse_map import MapImage, SparseMap
from r2d2_kapture.io.kapture.dataset import open_dataset
from r2d2_kapture.io.kapture.pose_files import write_pose_file, write_submission
from r2d2_kapture.stages import evaluate
from tests.evaluation.test_poses import in_own_frame
from tests.scenes.contents import files_below
from tests.scenes.kapture_files import write_dataset, write_files
from tests.scenes.poses import moved, random_poses
from tests.scenes.report import skip_drawing

NAMES = [
    "query/day/a.jpg",
    "query/day/b c.jpg",
    "query/night/é.jpg",
    "query/night/d.jpg",
]
FILES = {
    ".lock",
    "results.json",
    "results.txt",
    "per_image.csv",
    "errors.png",
    "plan.png",
    "evaluate_report.json",
}


@pytest.fixture(autouse=True)
def quick(request, monkeypatch):
    """Pictures have tests of their own; some tests here draw them all the same."""
    if request.node.get_closest_marker("draws") is None:
        skip_drawing(monkeypatch)


@pytest.fixture
def truth(tmp_path):
    return write_dataset(tmp_path / "truth", NAMES, random_poses(NAMES))


def offset_poses(count=4, metres=(1, 2, 3, 4)):
    true = random_poses(NAMES)
    return {n: moved(true[n], (m, 0, 0)) for n, m in zip(NAMES[:count], metres)}


@pytest.fixture
def localized(tmp_path):
    """Three of the four images, 1, 2 and 3 m off."""
    return write_dataset(tmp_path / "localized", NAMES, offset_poses(3))


def evaluate_one(truth, estimated, output, config=EvaluateConfig(), **kwargs):
    report = evaluate.run(
        config, ground_truth=truth, estimated={"x": estimated}, output=output, **kwargs
    )
    return report, report.details["estimates"].get("x")


@pytest.mark.draws
def test_a_run_draws_and_writes_figures(truth, localized, tmp_path):
    output = tmp_path / "out"
    report, figures = evaluate_one(truth, localized, output)
    assert (output / "plan.png").read_bytes().startswith(b"\x89PNG")
    assert (report.done, report.skipped, report.failed) == (1, 0, ())
    assert (figures["images"], figures["localized"], figures["missing"]) == (4, 3, 1)
    assert figures["median_position"] == pytest.approx(2)
    assert figures["median_position_of_all"] == pytest.approx(2.5)
    assert "position error, missing ones included: 2.5 m" in report.to_text()
    assert figures["recall"] == {
        "0.25 m 2 deg": 0.0,
        "0.5 m 5 deg": 0.0,
        "5 m 10 deg": 0.75,
    }
    assert {path.name for path in output.iterdir()} == FILES
    assert {path.name for path in report.outputs} < FILES
    results = json.loads((output / "results.json").read_text())
    total = results["estimates"]["x"]["total"]
    assert total["median_position"] == figures["median_position"]
    with (output / "per_image.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["image"]: row for row in csv.DictReader(file)}
    assert float(rows["query/day/b c.jpg"]["position_m"]) == pytest.approx(2)
    assert rows["query/night/d.jpg"]["localized"] == "0"
    assert json.loads((output / "evaluate_report.json").read_text())["done"] == 1


def test_a_text_file_in_any_format_gives_the_same_figures(
    truth, localized, tmp_path
) -> None:
    dataset = open_dataset(truth)
    _, expected = evaluate_one(truth, localized, tmp_path / "out")
    for pose_format in ("gangnam", "robotcar", "aachen", "extended_cmu", "eth_ms"):
        path = tmp_path / f"{pose_format}.txt"
        write_submission(path, dataset, offset_poses(3), pose_format)
        _, figures = evaluate_one(truth, path, tmp_path / pose_format)
        assert figures["median_position"] == pytest.approx(expected["median_position"])
        assert (figures["missing"], figures["unknown_images"]) == (1, 0)
    config = EvaluateConfig(text_format="gangnam")
    with pytest.raises(DatasetError, match="none of the images with a true pose"):
        evaluate_one(truth, tmp_path / "robotcar.txt", tmp_path / "p", config)


def test_names_may_begin_with_the_folder_of_queries(truth, localized, tmp_path):
    """As those of photographs that a pipeline localized."""
    names = [f"requêtes/{name}" for name in NAMES]
    poses = {f"requêtes/{name}": pose for name, pose in offset_poses(3).items()}
    photographs = write_dataset(tmp_path / "photographs", names, poses)
    _, expected = evaluate_one(truth, localized, tmp_path / "plain")
    report, figures = evaluate_one(truth, photographs, tmp_path / "out")
    assert figures == expected and figures["unknown_images"] == 0
    (warning,) = report.warnings
    assert "'requêtes/'" in warning
    # of two folders none is that of the queries
    poses["other/a.jpg"] = poses.pop("requêtes/" + NAMES[0])
    mixed = write_dataset(tmp_path / "mixed", [*names, "other/a.jpg"], poses)
    with pytest.raises(DatasetError, match="none of the images with a true pose"):
        evaluate_one(truth, mixed, tmp_path / "refused")


def test_several_estimates_in_one_table(truth, localized, tmp_path):
    better = write_dataset(tmp_path / "b", NAMES, offset_poses(4, [0.1] * 4))
    report = evaluate.run(
        EvaluateConfig(),
        ground_truth=truth,
        estimated={"old": localized, "new": better},
        output=tmp_path / "out",
    )
    assert report.done == 2
    estimates = report.details["estimates"]
    assert estimates["new"]["recall"]["0.25 m 2 deg"] == 1
    assert estimates["old"]["recall"]["0.25 m 2 deg"] == 0
    table = (tmp_path / "out/results.txt").read_text()
    assert [line.split()[0] for line in table.splitlines()[1:3]] == ["old", "new"]


def test_conditions_by_folder(truth, localized, tmp_path):
    evaluate_one(truth, localized, tmp_path / "out", EvaluateConfig(by="folder"))
    results = json.loads((tmp_path / "out/results.json").read_text())
    conditions = results["estimates"]["x"]["conditions"]
    assert list(conditions) == ["day", "night"]
    assert conditions["day"]["localized"] == 2
    assert conditions["day"]["median_position"] == pytest.approx(1.5)
    assert conditions["night"]["missing"] == 1


def test_conditions_by_lists(truth, localized, tmp_path) -> None:
    wet, dry = tmp_path / "wet.txt", tmp_path / "dry.txt"
    camera = "SIMPLE_RADIAL 1600 1200 1200 800 600 0.1"
    wet.write_text(f"{NAMES[0]} {camera}\n\n{NAMES[3]}\n", encoding="utf-8")
    dry.write_text(f"{NAMES[1]}\n{NAMES[2]}\n", encoding="utf-8")
    config = EvaluateConfig(by="lists", lists=(wet, dry))
    evaluate_one(truth, localized, tmp_path / "out", config)
    results = json.loads((tmp_path / "out/results.json").read_text())
    conditions = results["estimates"]["x"]["conditions"]
    assert conditions["wet"]["median_position"] == pytest.approx(1)
    assert conditions["dry"]["median_position"] == pytest.approx(2.5)
    wet.write_text(f"{NAMES[0]}\nother.jpg\n", encoding="utf-8")
    with pytest.raises(DatasetError, match="wet.txt, line 2: 'other.jpg' is not an"):
        evaluate_one(truth, localized, tmp_path / "new", config)
    empty = tmp_path / "empty.txt"
    empty.write_text("# later\n\n")
    config = EvaluateConfig(by="lists", lists=(empty,))
    with pytest.raises(DatasetError, match="empty.txt: found no image"):
        evaluate_one(truth, localized, tmp_path / "out", config)


def test_a_map_in_its_own_frame(tmp_path):
    names = [f"{number}.jpg" for number in range(8)]
    true = random_poses(names)
    truth = write_dataset(tmp_path / "truth", names, true)
    path = tmp_path / "map.txt"
    write_pose_file(path, in_own_frame(true))
    _, figures = evaluate_one(truth, path, tmp_path / "far")
    assert figures["recall"]["5 m 10 deg"] == 0
    config = EvaluateConfig(align=True)
    report, figures = evaluate_one(truth, path, tmp_path / "aligned", config)
    assert figures["mean_position"] < 1e-9
    results = json.loads((tmp_path / "aligned/results.json").read_text())
    assert results["estimates"]["x"]["alignment"]["scale"] == pytest.approx(0.37)
    assert report.failed == () and "missing ones included" not in report.to_text()


def test_the_map_is_drawn_in_the_frame_of_the_truth(tmp_path, monkeypatch):
    names = [f"{number}.jpg" for number in range(8)]
    true = random_poses(names)
    truth = write_dataset(tmp_path / "truth", names, true)
    own = in_own_frame(true)
    write_pose_file(tmp_path / "map.txt", own)
    # points at the centres of the cameras must stay there
    model = SparseMap(
        points=np.array([own[name].tgt_origin_in_src() for name in names]),
        point_ids=np.arange(8),
        images={name: map_image(own[name]) for name in names},
        cameras={},
    )
    monkeypatch.setattr(
        "r2d2_kapture.stages.evaluate.read_sparse_map", {"m": model}.get
    )
    drawn = []
    monkeypatch.setattr(
        "r2d2_kapture.stages.evaluate.draw_plan",
        lambda *args, mapped: (drawn.append(mapped), args[2].write_bytes(b"x")),
    )
    config = EvaluateConfig(align=True)
    evaluate_one(truth, tmp_path / "map.txt", tmp_path / "out", config, map_path="m")
    for name, pose, point in zip(names, drawn[0].cam_from_world, drawn[0].points):
        np.testing.assert_allclose(pose, true[name].matrix(), atol=1e-6)
        np.testing.assert_allclose(point, true[name].tgt_origin_in_src(), atol=1e-6)


def map_image(pose):
    none = np.zeros(0, np.int64)
    return MapImage(
        cam_from_world=pose.matrix(), keypoints=none, point_rows=none, keypoint_count=0
    )


def test_what_cannot_be_aligned_fails_and_others_do_not(truth, localized, tmp_path):
    single = write_dataset(tmp_path / "single", NAMES, offset_poses(1))
    estimated = {"single": single, "three": localized}
    config = EvaluateConfig(align=True)
    inputs = {"ground_truth": truth, "estimated": estimated}
    report = evaluate.run(config, output=tmp_path / "out", **inputs)
    assert [failure.name for failure in report.failed] == ["single"]
    assert "expected 2 or more" in report.failed[0].reason
    assert list(report.details["estimates"]) == ["three"]
    strict = RunOptions(strict=True)
    report = evaluate.run(config, output=tmp_path / "s", options=strict, **inputs)
    assert (report.done, len(report.failed), report.outputs) == (0, 1, ())
    assert {path.name for path in (tmp_path / "s").iterdir()} == {
        ".lock",
        "evaluate_report.json",
    }


@pytest.mark.parametrize("align", [False, True])
def test_nothing_localized_is_a_result_not_a_failure(truth, tmp_path, align):
    nothing = tmp_path / "empty.txt"
    nothing.write_text("")
    for empty in (nothing, write_dataset(tmp_path / "empty", NAMES, {})):
        output = tmp_path / f"of {empty.name}"
        config = EvaluateConfig(align=align)
        report, figures = evaluate_one(truth, empty, output, config)
        assert report.failed == ()
        assert (figures["missing"], figures["median_position"]) == (4, None)
        assert set(figures["recall"].values()) == {0.0}
        assert {path.name for path in output.iterdir()} == FILES


def test_images_without_true_pose_are_counted_and_left_out(tmp_path, localized) -> None:
    true = random_poses(NAMES)
    partial = write_dataset(tmp_path / "partial", NAMES, {NAMES[0]: true[NAMES[0]]})
    trajectories = partial / "sensors/trajectories.txt"
    trajectories.write_text(
        trajectories.read_text() + "1, cam, 1, 0, 0, 0, , ,\n", encoding="utf-8"
    )
    report, figures = evaluate_one(partial, localized, tmp_path / "out")
    assert report.details["without_true_pose"] == 3
    assert report.warnings == (
        f"3 images of {partial} have no true pose and are not evaluated: "
        f"'{NAMES[1]}', '{NAMES[3]}', '{NAMES[2]}'",
    )
    assert (figures["images"], figures["localized"]) == (1, 1)
    assert figures["unknown_images"] == 0  # the ground truth records the others
    listed = tmp_path / "wet.txt"
    listed.write_text("\n".join(NAMES[:2] + NAMES[:1]), encoding="utf-8")
    config = EvaluateConfig(by="lists", lists=(listed,))
    report, _ = evaluate_one(partial, localized, tmp_path / "listed", config)
    assert report.warnings[1] == (
        "list 'wet': 1 of its 2 images have no true pose and are not evaluated: "
        f"'{NAMES[1]}'"
    )


def test_partial_estimates_are_missing(truth, tmp_path):
    partial = write_dataset(tmp_path / "partial", NAMES)
    write_files(partial, trajectories="0, cam, 1, 0, 0, 0, , ,")
    _, figures = evaluate_one(truth, partial, tmp_path / "out")
    assert (figures["localized"], figures["missing"]) == (0, 4)


def test_chosen_images_only(truth, localized, tmp_path):
    _, figures = evaluate_one(
        truth, localized, tmp_path / "out", image_names=[NAMES[0], NAMES[3]]
    )
    assert (figures["images"], figures["localized"]) == (2, 1)
    assert figures["median_position"] == pytest.approx(1)
    with pytest.raises(DatasetError, match="found no image 'x.jpg'"):
        evaluate_one(truth, localized, tmp_path / "new", image_names=["x.jpg"])


def test_poses_of_unknown_images_are_counted_and_left_out(truth, tmp_path):
    poses = offset_poses(3) | random_poses(["map/1.jpg", "map/2.jpg"])
    write_pose_file(tmp_path / "poses.txt", poses)
    report, from_text = evaluate_one(truth, tmp_path / "poses.txt", tmp_path / "text")
    (warning,) = report.warnings
    assert warning.startswith(
        "2 poses of 'x' are of images that are not in the ground truth"
    )
    assert warning.endswith("'map/1.jpg', 'map/2.jpg'")
    both = write_dataset(tmp_path / "both", list(poses), poses)
    _, from_kapture = evaluate_one(truth, both, tmp_path / "kapture")
    for figures in (from_text, from_kapture):
        assert (figures["localized"], figures["unknown_images"]) == (3, 2)


def test_what_cannot_be_compared_is_refused(truth, localized, tmp_path):
    poses = random_poses(["z/1.jpg"])
    other = write_dataset(tmp_path / "other", list(poses), poses)
    text = tmp_path / "other.txt"
    write_pose_file(text, poses)
    unknown = "none of the images.*such as 'z/1.jpg'"
    unposed = [
        write_dataset(tmp_path / f"truth {number}", NAMES, poses)
        for number, poses in enumerate([None, {}])
    ]
    for true, estimated, words in (
        (truth, other, unknown),
        (truth, text, unknown),
        (unposed[0], localized, "found no true pose of 4 images"),
        (unposed[1], localized, "found no true pose of 4 images"),
        (truth, tmp_path / "nothing here", "nothing here: found nothing there"),
        (truth, tmp_path / "nothing.txt", "nothing.txt: found nothing there"),
    ):
        with pytest.raises(DatasetError, match=words):
            evaluate_one(true, estimated, tmp_path / "out")
    inputs = {"ground_truth": truth, "output": tmp_path / "out"}
    with pytest.raises(ConfigError, match="estimated: found none"):
        evaluate.run(EvaluateConfig(), estimated={}, **inputs)
    assert not (tmp_path / "out").exists()


@pytest.mark.draws
def test_each_run_draws_and_writes_the_same_bytes(truth, localized, tmp_path):
    config = EvaluateConfig(by="folder", align=True)
    first, second = tmp_path / "first", tmp_path / "second"
    for output in (first, second):
        evaluate_one(truth, localized, output, config)
    first_files, second_files = files_below(first), files_below(second)
    for name in FILES - {".lock", "evaluate_report.json"}:  # which tells the time
        assert first_files[name] == second_files[name]


def test_what_is_there_is_left_alone(truth, localized, tmp_path):
    output = tmp_path / "out"
    evaluate_one(truth, localized, output)
    before = files_below(output)
    report, figures = evaluate_one(truth, localized, output)
    assert (report.done, report.skipped) == (0, 1)
    assert figures["localized"] == 3
    assert files_below(output) == before


def test_results_of_other_poses_are_replaced_by_force_only(truth, localized, tmp_path):
    output = tmp_path / "out"
    evaluate_one(truth, localized, output)
    before = files_below(output)
    write_dataset(localized, NAMES, offset_poses(4))
    with pytest.raises(
        OutputError, match="found results of other poses; choose.*--force"
    ):
        evaluate_one(truth, localized, output)
    assert files_below(output) == before
    report, figures = evaluate_one(
        truth, localized, output, options=RunOptions(force=True)
    )
    assert (report.done, figures["localized"]) == (1, 4)
    assert files_below(output)["results.json"] != before["results.json"]


@pytest.mark.parametrize(
    "settings, reason",
    [
        ({"thresholds": ()}, "thresholds: found"),
        ({"thresholds": ((0.25, 0.0),)}, "above 0"),
        ({"thresholds": ((float("nan"), 1.0),)}, "above 0"),
        ({"thresholds": ((float("inf"), 1.0),)}, "above 0"),
        ({"by": "weather"}, "--by: found 'weather'"),
        ({"by": "lists"}, "lists: found 0"),
        ({"lists": ("a.txt",)}, "lists: found 1 with --by none"),
        ({"text_format": "csv"}, "--text-format: found 'csv'"),
    ],
)
def test_settings_that_cannot_be(settings, reason) -> None:
    with pytest.raises(ConfigError, match=reason):
        EvaluateConfig(**settings)


def test_lists_need_names_of_their_own(tmp_path):
    lists = (tmp_path / "a/day.txt", tmp_path / "b/day.txt")
    with pytest.raises(ConfigError, match="a different file name each"):
        EvaluateConfig(by="lists", lists=lists)


def test_the_gallery_against_itself(shared, tmp_path):
    mapping = shared / "data/virtual_gallery/mapping"
    report, figures = evaluate_one(mapping, mapping, tmp_path / "out")
    assert (figures["images"], figures["localized"]) == (12, 12)
    assert figures["mean_position"] == 0
    assert set(figures["recall"].values()) == {1.0}
