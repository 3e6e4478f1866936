"""The recipe from a video to a map."""

import json
import re
from pathlib import Path

import numpy as np
import pycolmap
import pytest

from pipelines.video_to_map import main
from r2d2_kapture.synthetic.rendering import PinholeCamera
from tests.commands import one_error_line
from tests.scenes.video import library, noise_frames, walk, write_video

FLAGS = "--preset fast --extract.top-k 800 --workers 1 --every 0s --min-motion 0.2"


def test_a_video_becomes_a_map(tmp_path: Path) -> None:
    library()
    camera = PinholeCamera(image_size=(320, 240), focal_length=300.0)
    steps = walk(camera, 10, still=(4,), blurred=(7,), half_angle=0.25)
    film = tmp_path / "a walk.mp4"
    write_video(film, steps.frames)
    arguments = ["--video", str(film), "--output", str(tmp_path / "work")]
    assert main([*arguments, *FLAGS.split()]) == 0
    report = json.loads((tmp_path / "work/pipeline_report.json").read_text("utf-8"))
    taken = report["stages"][0]
    assert (taken["stage"], taken["done"]) == ("import", 8)
    assert (taken["left_out_as_blurred"], taken["left_out_as_doubled"]) == (1, 1)
    page = (tmp_path / "work/report.html").read_text("utf-8")
    assert "1 left out as blurred, 1 left out as doubled" in page
    found = pycolmap.Reconstruction(str(tmp_path / "work" / "map" / "sparse"))
    names = [found.image(i).name for i in found.reg_image_ids()]
    numbers = [int(re.findall(r"frame_(\d+)", name)[0]) // 100 for name in names]
    assert sorted(numbers) == [0, 1, 2, 3, 5, 6, 8, 9]
    centers = np.array([-p[:3, :3].T @ p[:3, 3] for p in steps.cam_from_world])
    world = pycolmap.align_reconstruction_to_locations(
        found, names, centers[numbers], 3, pycolmap.RANSACOptions(max_error=0.1)
    )
    assert world is not None
    found.transform(world)
    errors = [
        np.linalg.norm(found.find_image_with_name(name).projection_center() - center)
        for name, center in zip(names, centers[numbers])
    ]
    length = np.linalg.norm(centers[0] - centers[-1])
    assert np.median(errors) < 0.01 * length


def test_a_video_of_one_frame_is_refused_before_extraction(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    library()
    write_video(tmp_path / "one.mp4", noise_frames(1))
    work = tmp_path / "work"
    assert main(["--video", str(tmp_path / "one.mp4"), "--output", str(work)]) == 2
    text = one_error_line(capsys)
    assert "frames: found 1 usable photograph, expected 2 or more" in text
    assert not (work / "features").exists()
