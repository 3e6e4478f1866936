"""Picture files of pairs and maps, as kapture_r2d2_view writes them.

Each function writes pictures and a JSON file of the numbers into ``output_dir``, takes
paths as ``str`` or ``Path``, and returns a Report that names the files.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from r2d2_kapture.config.extract import AUTO
from r2d2_kapture.config.match import MatchConfig
from r2d2_kapture.config.settings import (
    flat_names,
    make_settings,
    names_of,
    refuse_unknown,
)
from r2d2_kapture.config.verify import VerifyConfig
from r2d2_kapture.config.view import ViewConfig
from r2d2_kapture.front.arguments import (
    PathLike,
    as_paths,
    make_extractor,
    take_settings,
)
from r2d2_kapture.stages import view
from r2d2_kapture.types import Report


def view_pair(
    image1: PathLike,
    image2: PathLike,
    *,
    output_dir: PathLike,
    model: PathLike | None = None,
    extractor: str = AUTO,
    preset: PathLike | None = None,
    rotations: str = "off",
    **settings: Any,
) -> Report:
    """Match two photographs and draw the matches.

    Args:
        image1, image2: image files.
        output_dir: folder of the pictures.
        model: name of a bundled model, or path of weights; see load_extractor.
        extractor: its name; auto is the one for the model.
        preset: of configs/extract.
        rotations: quarter turns in which the network sees the photographs, see
            --rotations of the command.
        settings: of extraction, matching, verification and cameras, as the flags of
            the command are named.
    """
    device = {"gpu": settings.pop("gpu")} if "gpu" in settings else {}
    configs = _configs(settings)
    return view.run(
        configs[0],
        make_extractor(extractor, model, preset, {**settings, **device}),
        *configs[1:],
        images=(Path(image1), Path(image2)),
        output_dir=Path(output_dir),
        rotations=rotations,
    )


def view_stored_pair(
    pair: tuple[str, str],
    *,
    output_dir: PathLike,
    features: Sequence[PathLike] = (),
    matches: Sequence[PathLike] = (),
    kapture_root: PathLike | None = None,
    images: PathLike | None = None,
    **settings: Any,
) -> Report:
    """Draw two images with stored features, and stored matches if there are any.

    Args:
        pair: names of the images.
        output_dir: folder of the pictures.
        features, matches: HDF5 files of hloc's layout, or kapture folders.
        kapture_root: dataset of the images.
        images: folder that names are relative to; None is the dataset's.
        settings: of matching, verification and cameras, see view_pair.
    """
    configs = _configs(settings)
    refuse_unknown(
        settings,
        [
            *names_of(ViewConfig),
            *flat_names(MatchConfig, settings),
            *names_of(VerifyConfig),
        ],
    )
    return view.run_features(
        *configs,
        pair=pair,
        features=as_paths(features),
        matches=as_paths(matches),
        kapture_root=as_paths(kapture_root),
        images=as_paths(images),
        output_dir=Path(output_dir),
    )


def view_database(
    database: PathLike,
    pair: tuple[str, str],
    *,
    output_dir: PathLike,
    images: PathLike | None = None,
) -> Report:
    """Draw the matches and the geometry of a pair of a COLMAP database.

    Args:
        database: of COLMAP 3 or 4; only read.
        pair: names of the images.
        output_dir: folder of the pictures.
        images: folder that names are relative to; None takes it from the report of the
            pipeline that made the database.
    """
    return view.run_database(
        database=Path(database),
        pair=pair,
        images=as_paths(images),
        output_dir=Path(output_dir),
    )


def view_map(
    map_path: PathLike,
    image: str | None = None,
    *,
    output_dir: PathLike,
    images: PathLike | None = None,
) -> Report:
    """Draw an image of a map, and its matches with the images that share most points.

    Args:
        map_path: the map.
        image: name of the image; None is the one that observes most points.
        output_dir: folder of the pictures.
        images: folder that names are relative to; None takes it from the report of the
            pipeline that made the map.
    """
    return view.run_map(
        map_path=Path(map_path),
        image=image,
        images=as_paths(images),
        output_dir=Path(output_dir),
    )


def _configs(settings: dict[str, Any]) -> tuple[ViewConfig, MatchConfig, VerifyConfig]:
    """Separate the settings of all steps but extraction."""
    return (
        make_settings(ViewConfig, take_settings(ViewConfig, settings)),
        make_settings(MatchConfig, take_settings(MatchConfig, settings)),
        make_settings(VerifyConfig, take_settings(VerifyConfig, settings)),
    )
