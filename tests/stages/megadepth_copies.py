"""Copies of a rendered scene of MegaDepth, to prepare and to damage."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from r2d2_kapture.config.megadepth import MegadepthConfig
from r2d2_kapture.stages.megadepth import stage as megadepth
from r2d2_kapture.stages.megadepth.layout import DEPTH_FOLDER, SFM_FOLDER, SceneModel
from r2d2_kapture.stages.megadepth.scene import prepare
from r2d2_kapture.stages.megadepth.scene_info import SceneInfo, read_scene_info
from tests.scenes.contents import files_below
from tests.scenes.megadepth import WrittenScene, write_scene

REPORT_NAME = megadepth.REPORT_NAME


def write_and_prepare(root: Path) -> WrittenScene:
    """A scene, prepared in this process."""
    scene = write_scene(root)
    prepare(scene.model, MegadepthConfig(), force=False, threads=1)
    return scene


def unprepared_copy(published: WrittenScene, root: Path) -> WrittenScene:
    """The same inputs elsewhere."""
    original = published.model.output.parent
    for name in (SFM_FOLDER.parts[0], DEPTH_FOLDER.parts[0]):
        shutil.copytree(original / name, root / name)
    model = SceneModel(
        scene=published.model.scene,
        number=0,
        sfm=root / published.model.sfm.relative_to(original),
        depths=root / published.model.depths.relative_to(original),
        output=root / "out",
    )
    return WrittenScene(model=model, poses=published.poses, points=published.points)


def prepared(
    model: SceneModel, config: MegadepthConfig = MegadepthConfig()
) -> SceneInfo:
    prepare(model, config, force=False, threads=1)
    return read_scene_info(model.scene_info)


def left_out(model: SceneModel) -> dict[str, str]:
    record = json.loads(model.scene_info.with_suffix(".json").read_text())
    return record["left_out"]


def content(folder: Path) -> dict[str, bytes]:
    """Of all files that do not tell how long something took."""
    return files_below(folder, (".lock", REPORT_NAME))


def row_of(info: SceneInfo, name: str) -> int:
    return [path.endswith(f"images/{name}") for path in info.image_paths].index(True)


def copied(scene: WrittenScene, name: str) -> SceneModel:
    """The same inputs as another scene."""
    model = scene.model
    sfm, dense = model.sfm.with_name(name), model.depths.parents[1].with_name(name)
    shutil.copytree(model.sfm, sfm)
    shutil.copytree(model.depths.parents[1], dense)
    return SceneModel(
        scene=name,
        number=0,
        sfm=sfm,
        depths=dense / "dense0" / "depths",
        output=model.output,
    )
