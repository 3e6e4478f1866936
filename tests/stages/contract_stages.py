"""Every command that makes outputs, as a user types it on tiny data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from r2d2_kapture.io.features.hdf5 import write_h5
from r2d2_kapture.synthetic.dataset import write_room_dataset
from tests.scenes.images import write_crops
from tests.scenes.kapture_files import write_noise_dataset
from tests.scenes.megadepth import write_scene
from tests.scenes.pipeline import PipelineScene
from tests.scenes.reconstruction import synthesize
from tests.scenes.video import noise_frames, write_video
from tests.scenes.world import Scene

TINY = "--model {checkpoint} --gpu -1 --precision fp32 --min-size 32 --top-k 20"
TINY += " --reliability-thr 0 --repeatability-thr 0 --workers 1"
FEATURES = "--workers 1 --features {inputs}/scene/features"
MAPPING = "--mapping {inputs}/scene/mapping"
REDRAWN = "is drawn anew of what is there, whatever was there"


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A command, and what the contract needs to know of it.

    Attributes:
        command: its name.
        variant: of the command, where it has several entries.
        flags: of its command line; all outputs lie below ``{output}``.
        other: flags that change a setting on which the outputs depend.
        needs: command whose outputs are its inputs, as ``{name}``.
        foreign: path below the output at which a file of others is in the way.
        replaced: whether that is the place of an output, so that --force replaces it.
        items: whether it makes several things, so that a killed run keeps some.
        sliced: report of the command, if it makes slices.
        timed: pattern of names of files that hold times.
        left_out: points of the contract that do not apply, and why.
    """

    command: str
    variant: str = ""
    flags: str
    other: str = ""
    needs: str = ""
    foreign: str
    replaced: bool = False
    items: bool = True
    sliced: str = ""
    timed: str = r".*report\.(json|html)"
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Of the entry."""
        return f"{self.command}_{self.variant}" if self.variant else self.command


RENUMBERED = (
    "rows of a database that are made again get new numbers, see "
    "colmap/test_colmap.py::test_other_settings_are_refused_and_named"
)

STAGES = (
    Stage(
        command="extract",
        flags="--kapture-root {inputs}/noise --output {output}/features " + TINY,
        other="--top-k 10",
        foreign="features/reconstruction/keypoints/tiny/a.png.kpt",
        replaced=True,
        sliced="features/reconstruction/keypoints/tiny/extract_report.json",
    ),
    Stage(
        command="extract",
        variant="tar",
        flags="--kapture-root {inputs}/noise --output {output}/features --tar " + TINY,
        other="--top-k 10",
        foreign="features/reconstruction/keypoints/tiny/keypoints.tar",
        replaced=True,
        sliced="features/reconstruction/keypoints/tiny/extract_report.json",
    ),
    Stage(
        command="extract",
        variant="shards",
        flags="--kapture-root {inputs}/noise --output {output}/features "
        "--store shards " + TINY,
        other="--top-k 10",
        foreign="features/reconstruction/keypoints/tiny/shards/000000.tar",
        replaced=True,
        items=False,  # they are kept, but a shard is opened for many
        sliced="features/reconstruction/keypoints/tiny/extract_report.json",
    ),
    Stage(
        command="extract_images",
        flags="--images {inputs}/noise/sensors/records_data "
        "--output-dir {output}/features " + TINY,
        other="--top-k 10",
        foreign="features/a.png.r2d2",
        replaced=True,
    ),
    Stage(
        command="extract_images",
        variant="h5",
        flags="--images {inputs}/noise/sensors/records_data --format h5 "
        "--output-dir {output}/features " + TINY,
        other="--top-k 10",
        foreign="features/features.h5",
        replaced=True,
        sliced="features/extract_report.json",
    ),
    Stage(
        command="pairs",
        flags=f"{MAPPING} {FEATURES} --output {{output}}/pairs.txt --method local "
        "--global-features-output {output}/vlad --vlad-clusters 4 --top-k 8",
        other="--top-k 3",
        foreign="pairs.txt",
        items=False,
        replaced=True,
    ),
    Stage(
        command="pairs",
        variant="lowres",
        flags="--mapping {inputs}/noise --output {output}/pairs.txt --workers 1 "
        "--method lowres --lowres-size 96 --lowres-keypoints 64 "
        "--global-features-output {output}/small",
        other="--top-k 2",
        foreign="pairs.txt",
        items=False,
        replaced=True,
    ),
    Stage(
        command="match",
        flags=f"{FEATURES} --pairs {{pipeline}}/work/pairs/mapping.txt "
        "--output {output}/matches --gpu -1",
        other="--ratio 0.9",
        needs="pipeline",
        foreign="matches/reconstruction/matches/points/mine.matches",
        replaced=True,
        sliced="matches/reconstruction/matches/points/match_report.json",
    ),
    *(
        Stage(
            command="match",
            variant=store,
            flags=f"{FEATURES} --pairs {{pipeline}}/work/pairs/mapping.txt "
            f"--output {{output}}/matches --gpu -1 --store {store}",
            other="--ratio 0.9",
            needs="pipeline",
            foreign=f"matches/reconstruction/matches/points/{archive}",
            replaced=True,
            items=False,  # they are kept, but a shard is opened for many
            sliced="matches/reconstruction/matches/points/match_report.json",
        )
        for store, archive in (("tar", "matches.tar"), ("shards", "shards/000000.tar"))
    ),
    Stage(
        command="verify",
        variant="shards",
        flags=f"{MAPPING} {FEATURES} --pairs {{pipeline}}/work/pairs/mapping.txt "
        "--matches {pipeline}/work/matches --database {output}/map.db "
        "--output {output}/verified --store shards",
        other="--max-error 2",
        needs="pipeline",
        foreign="map.db",
        replaced=True,
        items=False,
        sliced="verified/reconstruction/matches/points/verify_report.json",
    ),
    Stage(
        command="verify",
        flags=f"{MAPPING} {FEATURES} --pairs {{pipeline}}/work/pairs/mapping.txt "
        "--matches {pipeline}/work/matches --database {output}/map.db "
        "--output {output}/verified",
        other="--max-error 2",
        needs="pipeline",
        foreign="map.db",
        replaced=True,
        sliced="verified/reconstruction/matches/points/verify_report.json",
    ),
    Stage(
        command="refine",
        flags=f"{MAPPING} {FEATURES} --database {{pipeline}}/work/database.db "
        "--output {output}/refined",
        other="--max-step 1",
        needs="pipeline",
        foreign="refined/database.db",
        replaced=True,
        sliced="refined/reconstruction/keypoints/points_refined/refine_report.json",
    ),
    Stage(
        command="refine",
        variant="shards",
        flags=f"{MAPPING} {FEATURES} --database {{pipeline}}/work/database.db "
        "--output {output}/refined --store shards",
        other="--max-step 1",
        needs="pipeline",
        foreign="refined/database.db",
        replaced=True,
        items=False,
        sliced="refined/reconstruction/keypoints/points_refined/refine_report.json",
    ),
    Stage(
        command="map",
        flags="--mapping {inputs}/scene/mapping --database {pipeline}/work/database.db "
        "--output {output}/map --features {inputs}/scene/features",
        other="--min-angle 0.5",
        needs="pipeline",
        foreign="map/mine.txt",
        items=False,
    ),
    Stage(
        command="localize",
        flags=f"--map {{pipeline}}/work/map --query {{query}} {FEATURES} "
        "--pairs {pipeline}/work/pairs/queries.txt "
        "--matches {pipeline}/work/matches --output {output}/localized",
        other="--max-error 8",
        needs="pipeline",
        foreign="localized/mine.txt",
        sliced="localized/report.json",
    ),
    Stage(
        command="localize",
        variant="unmatched",
        flags=f"--map {{pipeline}}/work/map --query {{query}} {FEATURES} "
        "--output {output}/localized --model-output {output}/model",
        other="--max-error 8",
        needs="pipeline",
        foreign="localized/mine.txt",
    ),
    Stage(
        command="evaluate",
        flags="--ground-truth {query} --output {output}/evaluation "
        "--estimated {pipeline}/work/localized/queries",
        other="--thresholds 0.1,1",
        needs="pipeline",
        foreign="evaluation/results.json",
        items=False,
        replaced=True,
    ),
    Stage(
        command="hpatches",
        flags="--root {inputs}/sequences --output {output}/hpatches --worst-pairs 1 "
        + TINY,
        other="--top-k 10",
        foreign="hpatches/tiny/mine.txt",
    ),
    Stage(
        command="pair_poses",
        flags="--kapture-root {inputs}/room/mapping --output {output}/poses "
        "--worst-pairs 1 " + TINY,
        other="--top-k 10",
        foreign="poses/tiny/mine.txt",
    ),
    Stage(
        command="train",
        flags="--images {inputs}/textures --output {output}/run --steps 4 "
        "--architecture fast_r2d2 --width 1 --descriptor-dim 16 --batch-size 1 "
        "--crop-size 64 --min-side 64 --patch-size 8 --border 8 --validate-every 2 "
        "--average-decay 0.9 --save-every 2 --log-every 1 --gpu -1 --workers 0",
        other="--learning-rate 0.01",
        foreign="run/state.pt",
        timed=r".*report\.json|log\.csv|validation\.csv|.*\.tfevents\..*",
        replaced=True,
    ),
    Stage(
        command="megadepth",
        flags="--depth-root {inputs}/megadepth --sfm-root {inputs}/megadepth "
        "--output {output}/megadepth --workers 1 --quiet",
        other="--max-image-size 1000",
        foreign="megadepth/Undistorted_SfM/0000/images/mine.jpg",
        items=False,
    ),
    Stage(
        command="fetch",
        flags="--data-root {output}/data --sources S --url {url}",
        foreign="data/aachen/style_transfer/mine.jpg",
        items=False,
        left_out={
            "other": "no setting decides what the published files hold",
            "foreign": "files put there by hand are taken for the published ones",
        },
    ),
    Stage(
        command="imports",
        flags="--database {inputs}/reconstruction/database.db "
        "--model {inputs}/reconstruction/sparse "
        "--images {inputs}/reconstruction/images --output {output}/dataset",
        other="--keypoints-type other",
        foreign="dataset/sensors/sensors.txt",
    ),
    Stage(
        command="imports",
        variant="video",
        flags="--video {inputs}/walk.mkv --every 0 --output {output}/dataset "
        "--min-motion 0",
        other="--every 0.3",
        foreign="dataset/sensors/sensors.txt",
    ),
    Stage(
        command="export",
        variant="kapture",
        flags="--kapture-root {inputs}/colmap --to kapture --output {output}/plain",
        other="--keypoints-type r2d2",
        foreign="plain/reconstruction/keypoints/points/mine.txt",
    ),
    Stage(
        command="export",
        flags="--kapture-root {inputs}/colmap --to colmap-db "
        "--output {output}/colmap.db",
        other="--camera-mode per-image",
        foreign="colmap.db",
        items=False,
        replaced=True,
    ),
    Stage(
        command="export",
        variant="colmap",
        flags="--kapture-root {inputs}/colmap --to colmap --output {output}/colmap",
        other="--camera-mode per-image",
        foreign="colmap/mine.txt",
        items=False,
    ),
    Stage(
        command="imports",
        variant="hloc",
        flags="--hloc {inputs}/hloc/features.h5 --output {output}/features",
        other="--keypoints-type mine",
        foreign="features/mine.txt",
    ),
    Stage(
        command="export",
        variant="hloc",
        flags="--pipeline {pipeline}/work --to hloc --output {output}/hloc",
        other="--keypoint-origin corner",
        needs="pipeline",
        foreign="hloc/mine.txt",
        items=False,
    ),
    Stage(
        command="export_model",
        flags="--model {checkpoint} --to torchscript --form extractor --size 64x48 "
        "--min-size 40 --top-k 20 --output {output}/model.pt",
        other="--top-k 10",
        foreign="model.pt",
        items=False,
        replaced=True,
        timed=r".*\.json",
    ),
    Stage(
        command="colmap",
        flags="--images {inputs}/shifted --database {output}/map.db "
        "--sparse {output}/sparse --map.refine-intrinsics false --match.gpu -1 "
        + TINY.replace("20", "200"),
        other="--verify.max-error 2",
        foreign="map.db",
        left_out={"force": RENUMBERED},
    ),
    Stage(
        command="report",
        flags="--map {pipeline}/work/map --output {output}/page.html",
        needs="pipeline",
        foreign="page.html",
        items=False,
        left_out={"other": REDRAWN, "force": REDRAWN, "two": REDRAWN},
    ),
    Stage(
        command="pipeline",
        flags=f"{MAPPING} --query queries={{query}} {FEATURES} --match.gpu -1 "
        "--output {output}/work --query_pairs.method exhaustive",
        other="--match.ratio 0.9",
        foreign="work/database.db",
        replaced=True,
    ),
    Stage(
        command="pipeline",
        variant="model_in",
        flags="--model-in {pipeline}/work/map/sparse "
        "--images {inputs}/scene/mapping/sensors/records_data "
        f"--query queries={{query}} {FEATURES} --match.gpu -1 "
        "--output {output}/work --query_pairs.method exhaustive",
        other="--localize.max-error 8",
        needs="pipeline",
        foreign="work/model/mine.txt",
    ),
)


def write_inputs(folder: Path) -> Path:
    """Write what the commands read; return the query dataset."""
    scene = PipelineScene(folder / "scene", times=3)
    write_noise_dataset(folder / "noise")
    for seed, name in enumerate(("v_wall", "i_lamp")):
        write_crops(folder / "sequences" / name, seed)
        write_crops(folder / "textures" / name, seed)
    write_room_dataset(
        folder / "room", mapping_images=3, query_images=1, image_size=(96, 72)
    )
    write_scene(folder / "megadepth")
    world = Scene(times=2)
    world.write_kapture(folder / "colmap")
    features = world.features(dim=8)
    (folder / "hloc").mkdir()
    items = [(name, features(name)) for name in world.names]
    write_h5(folder / "hloc" / "features.h5", items)
    (folder / "reconstruction").mkdir()
    synthesize(folder / "reconstruction")
    write_shifted(folder / "shifted")
    write_video(folder / "walk.mkv", noise_frames(8), lossless=True)
    return scene.query


def write_shifted(folder: Path) -> None:
    """Photographs of one texture by a camera that turns."""
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 255, (160, 200), dtype=np.uint8))
    texture = noise.filter(ImageFilter.GaussianBlur(1.5))
    folder.mkdir()
    for name, x, y in (("a.png", 0, 0), ("b.png", 16, 4), ("c.png", 8, 20)):
        texture.crop((x, y, x + 160, y + 120)).convert("RGB").save(folder / name)
