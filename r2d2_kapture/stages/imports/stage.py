"""Import: what other tools and devices made becomes a kapture dataset."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from r2d2_kapture.config.checks import require
from r2d2_kapture.config.imports import ImportSource
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.config.video import VideoConfig
from r2d2_kapture.errors import ConfigError
from r2d2_kapture.stages.imports import colmap
from r2d2_kapture.stages.imports import hloc as hloc_files
from r2d2_kapture.stages.imports import others
from r2d2_kapture.stages.imports import video as videos
from r2d2_kapture.types import Report


def run(
    config: VideoConfig = VideoConfig(),
    *,
    database: Path | None = None,
    model: Path | None = None,
    images: Path | None = None,
    video: Sequence[Path] = (),
    hloc: Sequence[Path] = (),
    source: ImportSource = "colmap",
    output: Path,
    keypoints_type: str | None = None,
    options: RunOptions = RunOptions(),
) -> Report:
    """Make a kapture dataset of COLMAP's files, of videos, or of files of hloc.

    Databases of COLMAP 3 and 4 and binary and text models are read as they are, and
    never changed. What both know is taken from the model: cameras, rigs and frames.
    Pixels count from the center of the first one in the dataset. Run it again to
    resume.

    Args:
        config: which frames of videos are taken.
        database: COLMAP database: cameras, rigs, frames, images, keypoints,
            descriptors, matches, two-view geometries and pose priors.
        model: folder of a COLMAP model, or one that holds it as sparse or 0: poses,
            points and their observations; without a database keypoints too.
        images: folder that the names of images are relative to; the dataset gets a
            link to it. Without it the dataset has no pixels.
        video: files of any format that FFmpeg reads, whose frames become images; their
            names must differ.
        hloc: HDF5 files of hloc: features, and any of matches and global features,
            told apart by what they hold. The output has no images and cameras: it is
            for --features and --matches beside a dataset of them.
        source: the tool that made --model, if not COLMAP: ``nvm``, a file of VisualSFM;
            ``bundler``, bundle.out, with bundle.out.list.txt or list.txt beside it;
            ``openmvg``, sfm_data.json; ``opensfm``, the folder of a project.
        output: folder of the kapture dataset; verified matches are in its folder
            verified, as kapture_r2d2_verify writes them.
        keypoints_type: name of the features in the dataset; by default the type that
            the database states in lower case, such as sift, else colmap; of hloc the
            name of the file of features.
        options: force and progress are used.

    Raises:
        ConfigError: not either of the two, or settings of videos without any.
        DatasetError: the database or the model cannot be read or does not belong to
            the other, holds what kapture cannot, or none of its images is there.
        ImageError: a video cannot be read.
        OutputError: the output exists and must not be replaced, or cannot be written.
    """
    if video or hloc:
        given = {"database": database, "model": model, "images": images}
        useless = [f"--{name}" for name, path in given.items() if path is not None]
        useless += ["--hloc"] if video and hloc else []
        useless += ["--from"] if source != "colmap" else []
        useless += ["--keypoints-type"] if video and keypoints_type else []
        require(
            not useless,
            f"--{'video' if video else 'hloc'}: found {', '.join(useless)} too, "
            "expected one source; import them into datasets of their own",
        )
    if video:
        return videos.run(config, video=video, output=output, options=options)
    require(
        config == VideoConfig(),
        "--every, --min-sharpness and other settings of videos: found no --video",
    )
    if hloc:
        return hloc_files.run(
            hloc=hloc, output=output, keypoints_type=keypoints_type, options=options
        )
    if source != "colmap":
        if model is None or database is not None:
            found = "no --model" if model is None else "--database"
            raise ConfigError(f"--from {source}: found {found}, expected --model alone")
        return others.run(
            source,
            model=model,
            images=images,
            output=output,
            keypoints_type=keypoints_type,
            options=options,
        )
    return colmap.run(
        database=database,
        model=model,
        images=images,
        output=output,
        keypoints_type=keypoints_type,
        options=options,
    )
