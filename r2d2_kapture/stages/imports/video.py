"""Videos as a kapture dataset: sharp frames that show something new."""

from __future__ import annotations

import dataclasses
import io
import itertools
import math
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.config.video import VideoConfig
from r2d2_kapture.core.frame_choice import (
    motion,
    outline,
    sharpness,
    with_neighbours,
)
from r2d2_kapture.errors import ConfigError, ImageError
from r2d2_kapture.io.colmap.image_folder import check_given
from r2d2_kapture.io.kapture.pixel_origins import ORIGIN_NAME, write_origin
from r2d2_kapture.io.kapture.writing import write_tables
from r2d2_kapture.io.names import broken_in_table_by, shown
from r2d2_kapture.io.outputs.atomic import remove_file, write_json_atomic
from r2d2_kapture.io.outputs.image_records import sha256_of
from r2d2_kapture.io.outputs.ledger import (
    STAGE,
    Contents,
    open_item,
    open_ledger,
    write_report,
)
from r2d2_kapture.io.outputs.manifest import Manifest, package_versions
from r2d2_kapture.io.progress import Progress
from r2d2_kapture.io.video import Video, VideoFrame, open_video
from r2d2_kapture.stages.imports.video_record import (
    BLURRED,
    DOUBLED,
    FOLDER,
    KEPT,
    Frame,
    Taken,
    describe,
    image_name,
    read_record,
    record_path,
)
from r2d2_kapture.types import Report, counted

REPORT_NAME = "import_report.json"
REACH = 5
ROUNDING = 1e-6
"""Of intervals: 0.3 / 0.1 is below 3, and the frame at 0.3 s begins the fourth."""
JPEG = {"format": "JPEG", "quality": 95, "subsampling": 0}
IMAGES = Path("sensors", "records_data")
CONTENTS = Contents(
    what="frames",
    files=(
        f"{IMAGES}/*/frame_*.*",
        f"{FOLDER}/*.json",
        "sensors/sensors.txt",
        "sensors/records_camera.txt",
        f"sensors/{ORIGIN_NAME}",
        REPORT_NAME,
    ),
)


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """The sharpest frame of an interval, with what decides on it.

    Attributes:
        frame: what is recorded of it.
        size: (W, H) in pixels.
        outline: see ``core.frame_choice.outline``.
        data: the encoded image.
    """

    frame: Frame
    size: tuple[int, int]
    outline: npt.NDArray[np.float32]
    data: bytes

    def judged(self, verdict: str, moved: float | None = None) -> Candidate:
        """The same with a verdict."""
        frame = dataclasses.replace(self.frame, verdict=verdict, motion=moved)
        return dataclasses.replace(self, frame=frame)


def run(
    config: VideoConfig,
    *,
    video: Sequence[Path],
    output: Path,
    options: RunOptions = RunOptions(),
) -> Report:
    """Take frames of videos into a kapture dataset: sharp ones that show something new.

    Each interval gives its sharpest frame; those that are blurred beside their
    neighbours, and those that moved too little, are left out. Each video has a
    camera, which mapping estimates unless its parameters are given. Timestamps are
    milliseconds since the first frame, and names are VIDEO/frame_MILLISECONDS.jpg.

    Args:
        config: settings.
        video: files of any format that FFmpeg reads; names differ, since each names a
            camera and a folder of frames. Frames are stored as the video is displayed.
        output: kapture dataset to make; videos may be added to an earlier one.
        options: how to run.

    Returns:
        A report that counts frames, also written as JSON in ``output``; each
        videos/VIDEO.json lists the frames and why others were left out.

    Raises:
        ConfigError: PyAV is not installed, the names of videos cannot name cameras, or
            known parameters do not fit the size of the frames.
        ImageError: no such file, or it is not a video.
        OutputError: the output was made with other settings or of another video of
            the same name, or cannot be written.
    """
    started = time.monotonic()
    _check_names(video)
    for path in video:
        with open_video(path):
            pass  # before a folder is made
    manifest = Manifest(
        model={},
        settings={
            STAGE: "import video",
            **dataclasses.asdict(config),
            "every": config.interval,
        },
        versions=package_versions(),
    )
    earlier, new = Counter[str](), Counter[str]()
    warnings: list[str] = []
    with open_ledger(output, CONTENTS, manifest, options, anew=options.force):
        for path in video:
            with open_video(path) as opened:
                sha256 = sha256_of(path)
                taken = _known(output, path, sha256)
                counts = new if taken is None else earlier
                if taken is None:
                    others = {one.size for one in _recorded(output, path.stem)}
                    taken = _take(opened, sha256, output, config, options, others)
            counts.update(frame.verdict for frame in taken.frames)
            warnings += taken.warnings
        write_tables(output, describe(list(_recorded(output)), config))
        write_origin(output / "sensors", "center")
        report = Report(
            stage="import",
            unit="frame",
            summary=f"of {counted(len(video), 'video')}",
            done=new[KEPT],
            skipped=earlier[KEPT],
            failed=(),
            warnings=tuple(warnings),
            seconds=time.monotonic() - started,
            outputs=(output,),
            details={
                "left_out_as_blurred": new[BLURRED] + earlier[BLURRED],
                "left_out_as_doubled": new[DOUBLED] + earlier[DOUBLED],
            },
        )
        return write_report(output / REPORT_NAME, report)


def _check_names(videos: Sequence[Path]) -> None:
    """Refuse names that cannot be those of cameras, or are shared."""
    for path in videos:
        broken = broken_in_table_by(path.stem)
        if broken is not None or path.stem.startswith("#"):
            raise ConfigError(
                f"{shown(str(path))}: the name '{shown(path.stem)}' "
                f"{broken or 'starts with #'}, which names of images must not; rename "
                "the video"
            )
    shared = [stem for stem, n in Counter(p.stem for p in videos).items() if n > 1]
    if shared:
        first, second = [str(p) for p in videos if p.stem == shared[0]][:2]
        raise ConfigError(
            f"--video: found {shown(first)} and {shown(second)} of one name, which "
            "names their frames; rename one"
        )


def _known(output: Path, path: Path, sha256: str) -> Taken | None:
    """The frames that an earlier run took of a video, if they are all there.

    Raises:
        OutputError: they are those of another video of this name.
    """
    taken = read_record(record_path(output, path.stem))
    if taken is None:
        return None
    if taken.sha256 != sha256:
        found = f"frames of another video named '{shown(path.stem)}'"
        raise CONTENTS.refusal(output, found)
    images = [output / IMAGES / taken.image(frame) for frame in taken.kept]
    return taken if all(image.is_file() for image in images) else None


def _recorded(output: Path, but: str | None = None) -> Iterator[Taken]:
    """What is recorded of all videos, or of all but one of this name."""
    for path in sorted((output / FOLDER).glob("*.json")):
        taken = read_record(path)
        if taken is not None and taken.name != but:
            yield taken


def _take(
    video: Video,
    sha256: str,
    output: Path,
    config: VideoConfig,
    options: RunOptions,
    others: Collection[tuple[int, int]],
) -> Taken:
    """Write the frames of a video, and last the record that says they are complete.

    Args:
        video: open.
        sha256: of its file.
        output: the dataset.
        config: settings.
        options: how to run.
        others: sizes of the other videos, whose parameters this one shares.
    """
    name, suffix = video.path.stem, config.image_format
    frames: list[Frame] = []
    broken: list[str] = []
    size = (0, 0)
    shown_frames = _shown(_until_broken(video, broken), video, options)
    sharp = _without_blurred(_sharpest(shown_frames, config), config.min_sharpness)
    for candidate in _without_doubled(sharp, config.min_motion):
        frame, size = candidate.frame, candidate.size
        if config.params:  # before anything of it is written
            check_given({size, *others}, config)
        if frame.verdict == KEPT:
            place = output / IMAGES / image_name(name, frame, suffix)
            # a killed run may have left the frame of another video of this name
            with open_item(output, place, keep_same=True) as file:
                file.write(candidate.data)
        frames.append(frame)
    if not frames:
        reason = broken[0] if broken else f"{video.path}: found no frames in it"
        raise ImageError(reason)
    taken = Taken(
        name=name,
        sha256=sha256,
        suffix=suffix,
        size=size,
        frames=tuple(frames),
        warnings=tuple(_warnings(video, frames, broken)),
    )
    kept = {output / IMAGES / taken.image(frame) for frame in taken.kept}
    for place in (output / IMAGES / name).glob("frame_*.*"):
        if place not in kept:
            remove_file(place)
    write_json_atomic(record_path(output, name), taken.to_json())
    return taken


def _until_broken(video: Video, broken: list[str]) -> Iterator[VideoFrame]:
    """The frames up to one that cannot be decoded, which is added to ``broken``."""
    try:
        yield from video.frames()
    except ImageError as error:
        broken.append(str(error))


def _shown(
    frames: Iterable[VideoFrame], video: Video, options: RunOptions
) -> Iterator[VideoFrame]:
    """The frames, with a bar of the video's seconds."""
    total = None if video.seconds is None else math.ceil(video.seconds)
    with Progress("import", "second", total, shown=options.progress) as bar:
        passed = 0
        for frame in frames:
            yield frame
            bar.update(int(frame.seconds) - passed)
            passed = int(frame.seconds)


def _sharpest(frames: Iterable[VideoFrame], config: VideoConfig) -> Iterator[Candidate]:
    """The sharpest frame of each interval; the first of equally sharp ones."""

    every = config.interval

    def interval(frame: VideoFrame) -> int:
        return int(frame.seconds / every + ROUNDING) if every else _time(frame)

    for _, group in itertools.groupby(frames, interval):
        measured = ((sharpness(frame.gray), frame) for frame in group)
        best, frame = max(measured, key=lambda item: item[0])
        pixels = frame.rgb
        yield Candidate(
            frame=Frame(milliseconds=_time(frame), sharpness=round(best, 4)),
            size=(pixels.shape[1], pixels.shape[0]),
            outline=outline(frame.gray),
            data=_encoded(pixels, config.image_format),
        )


def _time(frame: VideoFrame) -> int:
    return round(1000 * frame.seconds)


def _without_blurred(
    candidates: Iterable[Candidate], min_sharpness: float
) -> Iterator[Candidate]:
    """Candidates, with the verdict on those blurred beside their neighbours."""
    for candidate, neighbours in with_neighbours(candidates, REACH):
        usual = median(one.frame.sharpness for one in neighbours)
        blurred = candidate.frame.sharpness < min_sharpness * usual
        yield candidate.judged(BLURRED) if blurred else candidate


def _without_doubled(
    candidates: Iterable[Candidate], min_motion: float
) -> Iterator[Candidate]:
    """Candidates, with the verdict on those that moved little since the last kept."""
    last: Candidate | None = None
    for candidate in candidates:
        if candidate.frame.verdict == KEPT:
            moved = None
            if last is not None:
                moved = round(motion(last.outline, candidate.outline), 3)
            doubled = moved is not None and moved < min_motion
            candidate = candidate.judged(DOUBLED if doubled else KEPT, moved)
            last = last if doubled else candidate
        yield candidate


def _encoded(pixels: npt.NDArray[np.uint8], image_format: str) -> bytes:
    buffer = io.BytesIO()
    settings: dict[str, Any] = JPEG if image_format == "jpg" else {"format": "PNG"}
    Image.fromarray(pixels).save(buffer, **settings)
    return buffer.getvalue()


def _warnings(
    video: Video, frames: Sequence[Frame], broken: Sequence[str]
) -> Iterator[str]:
    last = frames[-1].milliseconds / 1000
    yield from (f"{text}; the frames before were taken" for text in broken)
    if not broken and video.seconds is not None and last < 0.9 * video.seconds - 0.5:
        yield (
            f"{video.path}: ends after {last:.1f} of {video.seconds:.1f} s; is the "
            "file complete?"
        )
