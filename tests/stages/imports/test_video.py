"""Frames of videos as kapture datasets."""

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.config.video import VideoConfig
from r2d2_kapture.errors import ConfigError, ImageError, OutputError
from r2d2_kapture.io.kapture.dataset import open_dataset
from r2d2_kapture.io.kapture.tables import image_records
from r2d2_kapture.stages.imports.video import run
from r2d2_kapture.synthetic.rendering import PinholeCamera
from tests.scenes.contents import files_below
from tests.scenes.video import Walk, library, noise_frames, walk, write_video

CAMERA = PinholeCamera(image_size=(160, 120), focal_length=150.0)
EVERY_FRAME = VideoConfig(every=0, image_format="png")


@pytest.fixture(scope="module", autouse=True)
def decoder() -> None:
    """All of this needs PyAV."""
    library()


@pytest.fixture(scope="module")
def steps() -> Walk:
    """Four frames standing still, three blurred ones."""
    return walk(CAMERA, 20, still=(8, 9, 10, 11), blurred=(4, 15, 16))


@pytest.fixture
def film(tmp_path: Path, steps: Walk) -> Path:
    """The walk as a lossless video, with a name that needs care."""
    path = tmp_path / "films" / "Allée n° 1 (été).mkv"
    write_video(path, steps.frames, lossless=True)
    return path


def kept_frames(root: Path) -> dict[int, np.ndarray]:
    """Pixels of the dataset's images, by milliseconds."""
    dataset = open_dataset(root)
    return {
        record.timestamp: np.asarray(Image.open(dataset.image_path(name)))
        for name, record in image_records(dataset.data).items()
    }


def test_sharp_frames_that_show_something_new(
    film: Path, steps: Walk, tmp_path: Path
) -> None:
    report = run(EVERY_FRAME, video=[film], output=tmp_path / "K")
    wanted = [n for n in range(20) if n not in steps.still | steps.blurred]
    found = kept_frames(tmp_path / "K")
    assert list(found) == [100 * number for number in wanted]
    for number in wanted:
        np.testing.assert_array_equal(found[100 * number], steps.frames[number])
    assert (report.done, report.skipped) == (len(wanted), 0)
    assert report.details == {"left_out_as_blurred": 3, "left_out_as_doubled": 4}
    record = json.loads((tmp_path / "K" / "videos" / f"{film.stem}.json").read_text())
    verdicts = [frame["verdict"] for frame in record["frames"]]
    assert [n for n in range(20) if verdicts[n] == "blurred"] == sorted(steps.blurred)
    assert [n for n in range(20) if verdicts[n] == "doubled"] == sorted(steps.still)


def test_intervals_give_their_sharpest_frame(
    film: Path, steps: Walk, tmp_path: Path
) -> None:
    config = VideoConfig(every=0.3, min_motion=0, min_sharpness=0, image_format="png")
    run(config, video=[film], output=tmp_path / "K")
    times = list(kept_frames(tmp_path / "K"))
    assert [time // 300 for time in times] == list(range(7))
    assert not {time // 100 for time in times} & steps.blurred


def test_intervals_of_a_frame_leave_none_out(tmp_path: Path) -> None:
    """0.3 / 0.1 and others are a hair below whole numbers."""
    film = tmp_path / "film.mkv"
    write_video(film, noise_frames(30), lossless=True)
    config = VideoConfig(every="100ms", min_motion=0, min_sharpness=0)
    run(config, video=[film], output=tmp_path / "K")
    assert list(kept_frames(tmp_path / "K")) == list(range(0, 3000, 100))


def test_a_video_that_parameters_do_not_fit_leaves_the_others_alone(
    film: Path, tmp_path: Path
) -> None:
    root, other = tmp_path / "K", tmp_path / "other.mkv"
    write_video(other, noise_frames(3), lossless=True)
    config = VideoConfig(camera_model="PINHOLE", camera_params="150,151,20,15")
    first = run(config, video=[film], output=root)
    before = files_below(root)
    with pytest.raises(ConfigError, match=r"2 sizes \(48 x 32, 160 x 120\)"):
        run(config, video=[film, other], output=root)
    assert files_below(root) == before
    again = run(config, video=[film], output=root)
    assert (again.done, again.skipped) == (0, first.done)


def test_the_dataset_is_a_camera_without_parameters(film: Path, tmp_path: Path) -> None:
    run(VideoConfig(), video=[film], output=tmp_path / "K")
    data = open_dataset(tmp_path / "K").data
    (sensor_id,) = data.sensors
    assert sensor_id == film.stem
    assert data.sensors[sensor_id].camera_type.name == "UNKNOWN_CAMERA"
    assert data.sensors[sensor_id].camera_params == [160, 120]
    names = list(image_records(data))
    assert names[0] == f"{film.stem}/frame_000000000.jpg"
    assert data.trajectories is None


def test_known_parameters_are_those_of_the_camera(film: Path, tmp_path: Path) -> None:
    config = VideoConfig(camera_model="PINHOLE", camera_params="150,151,80,60")
    run(config, video=[film], output=tmp_path / "K")
    camera = open_dataset(tmp_path / "K").data.sensors[film.stem]
    assert camera.camera_type.name == "PINHOLE"
    # kapture counts pixels from their centres
    assert camera.camera_params == [160, 120, 150, 151, 79.5, 59.5]
    wrong = VideoConfig(camera_model="PINHOLE", camera_params="150,151,800,60")
    with pytest.raises(ConfigError, match=r"principal point \(800, 60\) outside"):
        run(wrong, video=[film], output=tmp_path / "L")


@pytest.mark.parametrize(
    "every, seconds",
    [(0.5, 0.5), ("0.5s", 0.5), ("500ms", 0.5), ("2", 2), (".25s", 0.25), (0, 0)],
)
def test_intervals_with_units(every: float | str, seconds: float) -> None:
    assert VideoConfig(every=every).interval == seconds


@pytest.mark.parametrize("every", [-1, "-1s", "half", "1 h", "", "nan", "inf", 1e-9])
def test_intervals_that_are_none(every: float | str) -> None:
    with pytest.raises(ConfigError, match="--every: found .*, expected seconds"):
        VideoConfig(every=every)


@pytest.mark.parametrize("turned", [90, 180, 270])
def test_frames_are_stored_as_displayed(turned: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    corner = np.zeros((48, 64, 3), np.uint8)
    corner[:24, :32] = rng.integers(100, 255)
    film = tmp_path / "turned.mp4"
    write_video(film, [corner], turned=turned)
    run(VideoConfig(image_format="png"), video=[film], output=tmp_path / "K")
    (found,) = kept_frames(tmp_path / "K").values()
    expected = np.rot90(corner, turned // 90)
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).mean() < 6


def test_pixels_become_square(tmp_path: Path) -> None:
    film = tmp_path / "wide.mp4"
    frame = np.zeros((48, 64, 3), np.uint8)
    frame[:, 32:] = 200
    write_video(film, [frame], pixel_aspect=Fraction(3, 2))
    run(VideoConfig(image_format="png"), video=[film], output=tmp_path / "K")
    (found,) = kept_frames(tmp_path / "K").values()
    assert found.shape == (48, 96, 3)
    assert found[:, :44].max() < 30 and found[:, 52:].min() > 170


def test_again_nothing_is_done(film: Path, tmp_path: Path) -> None:
    root = tmp_path / "K"
    first = run(EVERY_FRAME, video=[film], output=root)
    before = files_below(root)
    second = run(EVERY_FRAME, video=[film], output=root)
    assert (second.done, second.skipped) == (0, first.done)
    assert files_below(root) == before


def test_a_lost_frame_is_taken_again(film: Path, tmp_path: Path) -> None:
    root = tmp_path / "K"
    run(EVERY_FRAME, video=[film], output=root)
    before = files_below(root)
    next(iter(root.rglob("frame_*.png"))).unlink()
    run(EVERY_FRAME, video=[film], output=root)
    after = files_below(root)
    assert {k: v for k, v in after.items() if "report" not in str(k)} == {
        k: v for k, v in before.items() if "report" not in str(k)
    }


def test_what_a_killed_run_left_of_another_video_is_replaced(
    film: Path, steps: Walk, tmp_path: Path
) -> None:
    root, other = tmp_path / "K", tmp_path / "other" / film.name
    write_video(other, steps.frames[10::-1], lossless=True)
    run(EVERY_FRAME, video=[film], output=root)
    record = root / "videos" / f"{film.stem}.json"
    record.unlink()  # which is written last
    run(EVERY_FRAME, video=[other], output=root)
    run(EVERY_FRAME, video=[other], output=tmp_path / "L")
    for left, right in zip(
        kept_frames(root).items(), kept_frames(tmp_path / "L").items(), strict=True
    ):
        assert left[0] == right[0]
        np.testing.assert_array_equal(left[1], right[1])
    files = [{p.name for p in at.rglob("frame_*")} for at in (root, tmp_path / "L")]
    assert files[0] == files[1]


def test_videos_are_added(film: Path, steps: Walk, tmp_path: Path) -> None:
    root = tmp_path / "K"
    second = tmp_path / "second.mkv"
    write_video(second, steps.frames[:4], lossless=True)
    first = run(EVERY_FRAME, video=[film], output=root)
    report = run(EVERY_FRAME, video=[second], output=root)
    assert report.done == 4
    dataset = open_dataset(root)
    assert len(dataset.image_names) == first.done + 4
    assert set(dataset.data.sensors) == {film.stem, "second"}


def test_other_settings_and_other_videos_are_refused(
    film: Path, steps: Walk, tmp_path: Path
) -> None:
    root = tmp_path / "K"
    run(EVERY_FRAME, video=[film], output=root)
    before = files_below(root)
    with pytest.raises(OutputError, match=r"every: 0\.0, not 0\.2"):
        run(VideoConfig(every=0.2, image_format="png"), video=[film], output=root)
    write_video(film, steps.frames[:4], lossless=True)
    with pytest.raises(OutputError, match="another video named 'Allée"):
        run(EVERY_FRAME, video=[film], output=root)
    assert files_below(root) == before
    report = run(EVERY_FRAME, video=[film], output=root, options=RunOptions(force=True))
    assert report.done == len(kept_frames(root)) == 4


def test_a_video_that_breaks_off_gives_the_frames_before(
    film: Path, tmp_path: Path
) -> None:
    whole = film.read_bytes()
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole[: int(0.6 * len(whole))])
    report = run(
        VideoConfig(every=0, min_motion=0, min_sharpness=0),
        video=[cut],
        output=tmp_path / "K",
    )
    assert 5 < report.done < 20
    assert len(report.warnings) == 1 and "cut.mkv" in report.warnings[0]


@pytest.mark.parametrize(
    "name, expected",
    [
        ("missing.mp4", "found no such file, expected a video"),
        ("folder.mp4", "found a folder, expected a video"),
        ("text.mp4", "found no video that FFmpeg reads"),
        ("empty.mp4", "found no video that FFmpeg reads"),
        ("headless.mp4", "is the file complete"),
        ("a,b.mkv", "holds a comma"),
        ("#1.mkv", "starts with #"),
    ],
)
def test_what_is_no_video_is_refused_in_one_line(
    name: str, expected: str, film: Path, steps: Walk, tmp_path: Path
) -> None:
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "text.mp4").write_text("no video\n" * 100)
    (tmp_path / "empty.mp4").touch()
    write_video(tmp_path / "headless.mp4", steps.frames)
    headless = (tmp_path / "headless.mp4").read_bytes()
    (tmp_path / "headless.mp4").write_bytes(headless[: len(headless) // 2])
    for odd in ("a,b.mkv", "#1.mkv"):
        (tmp_path / odd).write_bytes(film.read_bytes())
    with pytest.raises((ImageError, ConfigError)) as caught:
        run(VideoConfig(), video=[tmp_path / name], output=tmp_path / "K")
    text = str(caught.value)
    assert name in text and expected in text and "\n" not in text
    assert not list(tmp_path.glob("K/sensors/records_data/*/*"))


def test_videos_of_one_name_are_refused(film: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="of one name"):
        run(
            VideoConfig(),
            video=[film, tmp_path / f"{film.stem}.mp4"],
            output=tmp_path / "K",
        )
