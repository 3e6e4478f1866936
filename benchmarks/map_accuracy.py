r"""Maps of photographs without poses, against known camera positions.

    python benchmarks/map_accuracy.py --root multiview --model r2d2_WASF_N16.pt \
        --scenes lund_door imc_reichstag sceaux_castle --output out

For a folder with a ``gt.json`` (cameras, poses): a kapture dataset of its images and
cameras without poses goes through the pipeline, and the camera centres found are
compared with the true ones after a similarity alignment, as a share of the scene's
extent (the largest distance of two cameras). Other folders are mapped from EXIF.
``--camera-mode per-image`` or ``single`` takes the cameras for unknown.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import kapture
import kapture.io.csv as kcsv
import numpy as np
from scipy.spatial.distance import pdist

from r2d2_kapture.cli.common import EXIT_OK, run_command
from r2d2_kapture.config.cameras import CameraMode
from r2d2_kapture.config.evaluate import EvaluateConfig
from r2d2_kapture.config.extract import ExtractConfig
from r2d2_kapture.config.photographs import FolderConfig
from r2d2_kapture.config.pipeline import PipelineConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.config.verify import VerifyConfig
from r2d2_kapture.evaluation.posed_images import PosedImage, read_ground_truth
from r2d2_kapture.io.colmap.cameras import UNKNOWN_CAMERA, kapture_camera
from r2d2_kapture.io.colmap.image_folder import (
    link_folder,
    write_image_folder_dataset,
)
from r2d2_kapture.io.kapture.dataset import open_dataset
from r2d2_kapture.io.kapture.poses import kapture_from_rigid3d
from r2d2_kapture.models.checkpoints import Checkpoint, load_checkpoint
from r2d2_kapture.stages import evaluate, pipeline


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    return run_command(map_accuracy, arguments)


def map_accuracy(arguments: list[str]) -> int:
    """Map every scene, print a line each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--scenes", nargs="+", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument(
        "--camera-mode",
        choices=("known", "per-image", "single"),
        default="known",
        help="cameras of gt.json, or unknown ones: one an image, or one for all",
    )
    options = parser.parse_args(arguments)
    checkpoint = load_checkpoint(options.model)
    for scene in options.scenes:
        print(
            measure(
                options.root / scene,
                options.output / scene,
                checkpoint,
                options.camera_mode,
            )
        )
    return EXIT_OK


def measure(scene: Path, output: Path, checkpoint: Checkpoint, cameras: str) -> str:
    """Map a scene and say how good that is."""
    mapping, truth = output / "mapping", output / "truth"
    known = cameras == "known"
    mode: CameraMode = "single" if cameras == "single" else "auto"
    if not (scene / "gt.json").is_file():
        folder = FolderConfig(camera_mode="auto" if known else "per-image")
        write_image_folder_dataset(scene / "images", mapping, folder)
        if not known:
            forget_cameras(mapping)
        figures = run_pipeline(mapping, output, checkpoint, mode)
        return (
            f"{scene.name}: {figures}, {'cameras from EXIF' if known else 'no truth'}"
        )
    images = read_ground_truth(scene / "gt.json").images
    write_dataset(mapping, scene, images, poses=False, known=known)
    write_dataset(truth, scene, images, poses=True, known=True)
    figures = run_pipeline(mapping, output, checkpoint, mode)
    report = evaluate.run(
        EvaluateConfig(align=True),
        ground_truth=truth,
        estimated={"map": output / "work" / "map" / "kapture"},
        output=output / "evaluation",
        options=RunOptions(replace=True),
    )
    estimate = report.details["estimates"]["map"]
    extent = float(pdist(np.array([image.center for image in images])).max())
    share = 100 * estimate["median_position"] / extent
    return (
        f"{scene.name}: {figures}; centres: median {share:.3f} % of the extent, "
        f"rotations: median {estimate['median_rotation']:.3f} deg"
    )


def run_pipeline(
    mapping: Path, output: Path, checkpoint: Checkpoint, camera_mode: CameraMode
) -> str:
    """Map a dataset; the figures of the map."""
    pipeline.run(
        PipelineConfig(
            extract=ExtractConfig(), verify=VerifyConfig(camera_mode=camera_mode)
        ),
        mapping=mapping,
        queries={},
        output=output / "work",
        weights=checkpoint,
    )
    text = (output / "work" / "map" / "report.json").read_text(encoding="utf-8")
    report = json.loads(text)
    return (
        f"{report['registered_images']} of {report['images']} images, "
        f"{report['points']} points, {report['mean_reprojection_error']:.3f} px, "
        f"calibration {report['calibration']}"
    )


def forget_cameras(root: Path) -> None:
    """Leave nothing of the cameras of a dataset but their sizes."""
    data = open_dataset(root).data
    for sensor_id, sensor in data.sensors.items():
        size = sensor.camera_params[:2]
        data.sensors[sensor_id] = kapture.Camera(UNKNOWN_CAMERA, size)
    kcsv.kapture_to_dir(str(root), data)


def write_dataset(
    root: Path, scene: Path, images: Sequence[PosedImage], *, poses: bool, known: bool
) -> None:
    """A kapture dataset of a scene, a camera an image; pixels stay where they are."""
    sensors, records = kapture.Sensors(), kapture.RecordsCamera()
    trajectories = kapture.Trajectories()
    for number, image in enumerate(images):
        sensor_id = f"camera_{number:03d}"
        size = [image.camera.width, image.camera.height]
        sensors[sensor_id] = (
            kapture_camera(image.camera, "center")
            if known
            else kapture.Camera(UNKNOWN_CAMERA, size)
        )
        records[number, sensor_id] = image.name
        trajectories[number, sensor_id] = kapture_from_rigid3d(image.cam_from_world)
    dataset = kapture.Kapture(
        sensors=sensors,
        records_camera=records,
        trajectories=trajectories if poses else None,
    )
    kcsv.kapture_to_dir(str(root), dataset)
    link_folder(root / "sensors" / "records_data", scene)


if __name__ == "__main__":
    raise SystemExit(main())
