"""Pictures of what the network sees: keypoints and confidence maps of single images."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from r2d2_kapture.core.extraction import Extractor
from r2d2_kapture.errors import ImageError
from r2d2_kapture.io.images.decoding import read_rgb
from r2d2_kapture.io.images.masks import open_masks
from r2d2_kapture.io.images.search import PICTURE_SUFFIXES
from r2d2_kapture.pictures.features import draw_heatmaps, draw_keypoints
from r2d2_kapture.stages.extract.image_names import common_folder, relative_names
from r2d2_kapture.types import Failure, Report


def run(
    extractor: Extractor,
    *,
    images: Sequence[Path],
    output_dir: Path | None = None,
    max_keypoints: int = 1000,
    masks: Path | None = None,
    notes: Sequence[str] = (),
) -> Report:
    """Write ``IMAGE.keypoints.png`` and ``IMAGE.maps.png`` for every image.

    Args:
        extractor: whose features are shown.
        images: image files.
        output_dir: folder of the pictures; by default that of each image.
        max_keypoints: number of keypoints drawn, best scores first.
        masks: folder of masks by the names relative to the images' common folder, see
            MaskFolder.
        notes: warnings on the choice of images, for the report.
    """
    started = time.monotonic()
    outputs: list[Path] = []
    failed: list[Failure] = []
    paths = relative_names(images, [common_folder(images)])
    mask_folder = open_masks(masks)
    if mask_folder is not None:
        notes = (*notes, *mask_folder.warnings(paths))
    for name, path in paths.items():
        try:
            image = read_rgb(path)
            size = image.shape[1], image.shape[0]
            mask = None if mask_folder is None else mask_folder.read(name, path, size)
        except ImageError as error:
            failed.append(Failure(name=str(path), reason=str(error)))
            continue
        target = path if output_dir is None else output_dir / name
        features = extractor(image, mask)
        keypoints_path = target.with_name(target.name + PICTURE_SUFFIXES[0])
        maps_path = target.with_name(target.name + PICTURE_SUFFIXES[1])
        draw_keypoints(
            image,
            features,
            keypoints_path,
            max_keypoints=max_keypoints,
            title=f"{path.name}, {extractor.label}",
        )
        outputs.append(keypoints_path)
        if maps := extractor.confidence_maps(image):
            draw_heatmaps(image, maps, maps_path)
            outputs.append(maps_path)
    return Report(
        stage="view",
        unit="photograph",
        done=len(images) - len(failed),
        skipped=0,
        failed=tuple(failed),
        warnings=(*notes, *extractor.warnings),
        seconds=time.monotonic() - started,
        outputs=tuple(outputs),
    )
