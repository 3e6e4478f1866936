"""Small valid files of every kind that this package reads, and what reads them."""

from __future__ import annotations

import io
import itertools
import json
import shutil
from collections.abc import Callable
from contextlib import redirect_stderr, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pycolmap
from PIL import Image

from r2d2_kapture.cli import extract, train
from r2d2_kapture.evaluation.feature_files import read_feature_file
from r2d2_kapture.evaluation.pair_results import PairPoseRun, load_run, save_run
from r2d2_kapture.evaluation.posed_images import read_ground_truth
from r2d2_kapture.evaluation.published_caches import read_published_cache
from r2d2_kapture.evaluation.sequences import read_sequence
from r2d2_kapture.io.archives import unpack
from r2d2_kapture.io.colmap.check import check_database
from r2d2_kapture.io.colmap.geometry_log import (
    log_geometry,
    pair_geometry,
    read_geometries,
)
from r2d2_kapture.io.colmap.model import read_database
from r2d2_kapture.io.colmap.sparse_map import read_sparse_map
from r2d2_kapture.io.features.hdf5 import h5_names, h5_settings, read_h5, write_h5
from r2d2_kapture.io.features.mat import read_mat_settings, write_mat
from r2d2_kapture.io.features.npz import read_npz, read_npz_settings, write_npz
from r2d2_kapture.io.images.decoding import image_size, read_rgb
from r2d2_kapture.io.images.search import find_images
from r2d2_kapture.io.kapture.dataset import open_dataset
from r2d2_kapture.io.kapture.feature_table import open_feature_table
from r2d2_kapture.io.kapture.local_features import open_local_features
from r2d2_kapture.io.kapture.match_store import open_matches
from r2d2_kapture.io.kapture.pairs import read_pairs
from r2d2_kapture.io.kapture.pose_files import (
    read_pose_file,
    read_submission,
    write_pose_file,
)
from r2d2_kapture.io.kapture.trajectories import read_camera_poses
from r2d2_kapture.io.outputs.json_log import open_log
from r2d2_kapture.io.outputs.manifest import Manifest, read_manifest
from r2d2_kapture.models.checkpoints import load_checkpoint, serialize_checkpoint
from r2d2_kapture.models.registry import Architecture
from r2d2_kapture.stages.megadepth.scene_info import (
    read_scene_info,
    read_scene_list,
    write_scene_info,
)
from r2d2_kapture.training.state import read_state
from r2d2_kapture.types import LocalFeatures
from tests.evaluation.test_pair_results import PAIRS
from tests.evaluation.test_published_caches import write_cache
from tests.io.colmap.test_geometry_log import geometry
from tests.io.colmap.test_sparse_map import write_kapture
from tests.scenes.features import unit_rows
from tests.scenes.images import write_crops
from tests.scenes.kapture_files import (
    write_features,
    write_global_features,
    write_rig_dataset,
)
from tests.scenes.networks import (
    random_d2net,
    random_network,
    save_d2net,
    save_published,
)
from tests.scenes.poses import random_poses
from tests.scenes.world import Scene
from tests.stages.megadepth.test_scene_info import scene_info
from tests.training.test_state import STATE

NAMES = ("a b.jpg", "é/c.png")


@dataclass(frozen=True)
class Sample:
    """Files of one kind.

    Attributes:
        build: writes valid files below a folder; any of them is then broken.
        read: reads them, as the commands do.
    """

    build: Callable[[Path], object]
    read: Callable[[Path], object]


def features(count: int = 5, dim: int = 128) -> LocalFeatures:
    rng = np.random.default_rng(0)
    return LocalFeatures(
        keypoints=rng.random((count, 2), dtype=np.float32) * np.float32(40),
        scales=np.full(count, 32, np.float32),
        scores=np.linspace(1, 0.5, count, dtype=np.float32),
        descriptors=unit_rows(count, dim),
        image_size=(64, 48),
    )


def _dataset(root: Path) -> object:
    return read_camera_poses(open_dataset(root))


def _write_features(root: Path, tar: bool) -> None:
    rows = {name: unit_rows(3) for name in NAMES}
    write_features(root, rows, tar=tar)
    write_global_features(root, {name: unit_rows(1) for name in NAMES})


def _read_features(root: Path) -> None:
    tables = open_local_features([root])
    for name in NAMES:
        tables.read(name, (64, 48))
    table = open_feature_table([root], "global_features")
    for name in NAMES:
        table.read(name)


def _read_matches(root: Path) -> None:
    table = open_matches([root], "r2d2")
    for pair in itertools.combinations(Scene(times=1).names, 2):
        table.read(*pair)


def _database(folder: Path) -> None:
    check_database(folder / "c.db")
    read_database(folder / "c.db")


def _model(folder: Path, text: bool) -> None:
    options = pycolmap.SyntheticDatasetOptions(
        num_rigs=1, num_cameras_per_rig=2, num_frames_per_rig=2, num_points3D=6
    )
    pycolmap.set_random_seed(1)
    model = pycolmap.synthesize_dataset(options)
    (model.write_text if text else model.write_binary)(str(folder))


def _kapture_map(folder: Path) -> None:
    _model(folder, text=False)
    write_kapture(pycolmap.Reconstruction(str(folder)), folder)
    for path in folder.glob("*.bin"):
        path.unlink()


def _h5(folder: Path) -> None:
    write_h5(folder / "f.h5", [(name, features()) for name in NAMES], '{"s": 1}')


def _read_h5(folder: Path) -> None:
    h5_settings(folder / "f.h5")
    for name in h5_names(folder / "f.h5"):
        read_h5(folder / "f.h5", name)


def _read_npz(folder: Path) -> None:
    read_npz_settings(folder / "f.r2d2")
    read_npz(folder / "f.r2d2")


def _d2net_npz(folder: Path) -> None:
    rows = features()
    with (folder / "f.d2-net").open("wb") as file:
        np.savez(
            file,
            keypoints=np.c_[rows.keypoints, rows.scales],
            scores=rows.scores,
            descriptors=rows.descriptors,
        )
    Image.new("RGB", (64, 48)).save(folder / "f.png")


def _ground_truth(folder: Path) -> None:
    images = [
        {
            "name": name,
            "K": [[60, 0, 31.5], [0, 60, 23.5], [0, 0, 1]],
            "dist": [0.1, 0.01, 0, 0],
            "R": pose.rotation.matrix().tolist(),
            "t": pose.translation.tolist(),
        }
        for name, pose in random_poses(["a.png", "b.png"]).items()
    ]
    (folder / "gt.json").write_text(json.dumps({"images": images}))


def _read_ground_truth(folder: Path) -> None:
    for name in ("a.png", "b.png"):
        Image.new("RGB", (64, 48)).save(folder / name)
    read_ground_truth(folder / "gt.json")


def _geometries(folder: Path) -> None:
    with open_log(folder / "log") as log:
        for seed in (0, 1):
            log_geometry(
                log, pair_geometry(("a", str(seed)), "x", geometry(seed), matches=30)
            )


def _read_geometries(folder: Path) -> None:
    for found in read_geometries(folder / "log").values():
        found.two_view_geometry(np.zeros((0, 2), np.int64))


def _safetensors(folder: Path) -> None:
    name = "fast_r2d2"
    architecture = Architecture(name=name, width=1, descriptor_dim=16)
    network = random_network(name)
    (folder / "m.safetensors").write_bytes(
        serialize_checkpoint(network, architecture, training={}, license_name="x")
    )


def _published(folder: Path) -> None:
    network = random_network("r2d2")
    net = "Quad_L2Net_ConfCFS(mchan=1, dim=16)"
    save_published(folder / "m.pt", network.state_dict(), net, zip_format=False)


def _archive(folder: Path) -> None:
    (folder / "content").mkdir()
    (folder / "content" / "a.txt").write_text("a" * 100)
    for kind in ("zip", "gztar"):
        shutil.make_archive(str(folder / "archive"), kind, folder / "content")
    shutil.rmtree(folder / "content")


def _unpack(folder: Path) -> None:
    for name in ("archive.zip", "archive.tar.gz"):
        unpack(folder / name, folder.parent / "unpacked", progress=False)


def _images(folder: Path) -> None:
    image = Image.fromarray(np.arange(3 * 12 * 16, dtype=np.uint8).reshape(12, 16, 3))
    for suffix in ("png", "jpg", "ppm", "webp", "tif", "bmp", "gif"):
        image.save(folder / f"a.{suffix}")


def _read_images(folder: Path) -> None:
    for path in sorted(folder.iterdir()):
        image_size(path)
        read_rgb(path)


def _lists(folder: Path) -> None:
    rows = ["# kapture format: 1.1", "a.jpg, b.jpg, 1", "é/c d.jpg, a.jpg, 0.5"]
    (folder / "pairs.txt").write_text("\n".join(rows) + "\n", "utf-8")


def _image_list(folder: Path) -> None:
    (folder / "list.txt").write_text("a.png\nsub/b c.png\n", "utf-8")


def _poses(folder: Path) -> None:
    write_pose_file(folder / "poses.txt", random_poses(["a.jpg", "b c.jpg"]))


def _submission(folder: Path) -> None:
    names = open_dataset(write_rig_dataset(folder)).image_names
    write_pose_file(folder / "poses.txt", random_poses(names))


def _configs(folder: Path) -> None:
    for path in Path("configs").glob("*/*.yaml"):
        if path.parent.name in ("extract", "train"):
            (folder / path.parent.name).mkdir(exist_ok=True)
            shutil.copy(path, folder / path.parent.name / path.name)


def _read_configs(folder: Path) -> None:
    for path in folder.glob("*/*.yaml"):
        main = extract.main if path.parent.name == "extract" else train.main
        with suppress(SystemExit), redirect_stderr(io.StringIO()) as said:
            code = main(["--config", str(path)])
            assert code == 2, said.getvalue()  # no defect; nothing is named to be done


def _state(folder: Path) -> None:
    (folder / "state.pt").write_bytes(STATE.to_bytes())


def _manifest(folder: Path) -> None:
    manifest = Manifest(model={"name": "a"}, settings={"k": 1.5}, versions={"v": "1"})
    (folder / "manifest.json").write_text(json.dumps(manifest.to_json()))


SAMPLES = {
    "kapture dataset": Sample(lambda root: write_rig_dataset(root), _dataset),
    "features": Sample(lambda root: _write_features(root, False), _read_features),
    "feature archives": Sample(
        lambda root: _write_features(root, True), _read_features
    ),
    "matches": Sample(lambda root: Scene(times=1).write_kapture(root), _read_matches),
    "database": Sample(lambda p: Scene(times=1).write(p / "c.db"), _database),
    "binary model": Sample(lambda p: _model(p, False), read_sparse_map),
    "text model": Sample(lambda p: _model(p, True), read_sparse_map),
    "kapture map": Sample(_kapture_map, read_sparse_map),
    "h5": Sample(_h5, _read_h5),
    "npz": Sample(lambda p: write_npz(p / "f.r2d2", features(), "{}"), _read_npz),
    "npz of D2-Net": Sample(
        _d2net_npz, lambda p: read_feature_file(p / "f.d2-net", p / "f.png")
    ),
    "mat": Sample(
        lambda p: write_mat(p / "f.mat", features(), "{}"),
        lambda p: read_mat_settings(p / "f.mat"),
    ),
    "pairs": Sample(_lists, lambda p: read_pairs(p / "pairs.txt")),
    "list of images": Sample(_image_list, lambda p: find_images([str(p / "list.txt")])),
    "safetensors": Sample(_safetensors, lambda p: load_checkpoint(p / "m.safetensors")),
    "published R2D2": Sample(_published, lambda p: load_checkpoint(p / "m.pt")),
    "published D2-Net": Sample(
        lambda p: save_d2net(p / "m.pth", random_d2net()),
        lambda p: load_checkpoint(p / "m.pth"),
    ),
    "state of training": Sample(_state, lambda p: read_state(p / "state.pt")),
    "ground truth": Sample(_ground_truth, _read_ground_truth),
    "pose file": Sample(_poses, lambda p: read_pose_file(p / "poses.txt")),
    "submission": Sample(
        _submission, lambda p: read_submission(p / "poses.txt", open_dataset(p))
    ),
    "geometries": Sample(_geometries, _read_geometries),
    "scene info": Sample(
        lambda p: write_scene_info(p / "s.npz", scene_info()),
        lambda p: read_scene_info(p / "s.npz"),
    ),
    "scene list": Sample(
        lambda p: (p / "s.txt").write_text("0000\n0015.npz\n"),
        lambda p: read_scene_list(p / "s.txt"),
    ),
    "published cache": Sample(
        lambda p: write_cache(p / "c.npy"), lambda p: read_published_cache(p / "c.npy")
    ),
    "results of pairs": Sample(
        lambda p: save_run(
            p / "r.json", PairPoseRun(label="m", manifest={}, pairs=PAIRS)
        ),
        lambda p: load_run(p / "r.json"),
    ),
    "sequence": Sample(
        lambda p: write_crops(p / "v_a", 0), lambda p: read_sequence(p / "v_a")
    ),
    "settings": Sample(_configs, _read_configs),
    "manifest": Sample(_manifest, lambda p: read_manifest(p / "manifest.json")),
    "archives": Sample(_archive, _unpack),
    "images": Sample(_images, _read_images),
}
