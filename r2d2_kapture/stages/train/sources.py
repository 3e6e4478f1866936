"""Opens all sources of pairs of a run."""

from __future__ import annotations

from r2d2_kapture.config.megadepth import MegadepthPairs
from r2d2_kapture.config.training_pairs import PairConfig
from r2d2_kapture.config.training_sources import SourceConfig, ValidationConfig
from r2d2_kapture.errors import ConfigError
from r2d2_kapture.stages.megadepth import read_scene_list
from r2d2_kapture.stages.train.megadepth import open_megadepth
from r2d2_kapture.stages.train.photographs import (
    OpenedSources,
    find_photographs,
    open_named_sources,
    photograph_sources,
    picture_loader,
)
from r2d2_kapture.stages.train.posed import open_depth_views, open_model_views
from r2d2_kapture.training.loading import PictureLoader


def open_sources(
    inputs: SourceConfig,
    config: PairConfig,
    selection: MegadepthPairs = MegadepthPairs(),
    load: PictureLoader | None = None,
) -> OpenedSources:
    """Open all sources, with a shared cache of images.

    Args:
        inputs: folders of images.
        config: of the pairs.
        selection: of pairs of MegaDepth.
        load: decodes images; None creates a decoder.

    Raises:
        ConfigError, DatasetError, ReconstructionError: a source cannot be used.
    """
    load = load or picture_loader(config)
    opened = OpenedSources(sources=(), skipped=())
    if inputs.images is not None:
        paths, skipped = find_photographs(inputs.images, config, inputs.exclude)
        sources = photograph_sources(inputs.images, paths, config, load)
        opened = opened.joined(OpenedSources(sources=sources, skipped=skipped))
    if inputs.data_root is not None:
        opened = opened.joined(
            open_named_sources(inputs.data_root, inputs.sources, config, load)
        )
    if inputs.depth_dataset is not None:
        opened = opened.joined(
            open_depth_views(inputs.depth_dataset, config, load, inputs.camera_origin)
        )
    if inputs.sfm_model is not None:
        opened = opened.joined(
            open_model_views(
                inputs.sfm_model, config, load, inputs.sfm_images, inputs.camera_origin
            )
        )
    if inputs.megadepth is not None and inputs.train_scenes is not None:
        scenes = read_scene_list(inputs.train_scenes)
        opened = opened.joined(
            open_megadepth(inputs.megadepth, scenes, config, load, selection)
        )
    return opened


def open_validation_sources(
    inputs: SourceConfig,
    validation: ValidationConfig,
    config: PairConfig,
    selection: MegadepthPairs = MegadepthPairs(),
) -> OpenedSources:
    """Open the sources of posed validation pairs; none by default.

    Args:
        inputs: with the folder of MegaDepth.
        validation: dataset and scenes.
        config: of the pairs.
        selection: of pairs of MegaDepth.

    Raises:
        ConfigError, DatasetError: a source cannot be used.
    """
    load = picture_loader(config)
    opened = OpenedSources(sources=(), skipped=())
    if validation.validation_dataset is not None:
        opened = opened.joined(
            open_depth_views(
                validation.validation_dataset, config, load, inputs.camera_origin
            )
        )
    if validation.validation_scenes is not None:
        root = inputs.megadepth
        if root is None:
            raise ConfigError(
                f"--validation-scenes {validation.validation_scenes}: found no "
                "--megadepth, expected the folder of the scenes"
            )
        scenes = read_scene_list(validation.validation_scenes)
        opened = opened.joined(open_megadepth(root, scenes, config, load, selection))
    return opened
