"""The pairs that a run matches: their order, and those that cannot be matched."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.errors import FeatureFormatError
from r2d2_kapture.io.kapture.followed_features import read_states
from r2d2_kapture.io.kapture.local_features import LocalFeatureTables
from r2d2_kapture.io.kapture.match_store import find_matches, matches_folder
from r2d2_kapture.types import some_names

Names = tuple[str, str]


def in_caching_order(pairs: Iterable[Names]) -> list[Names]:
    """Sort sorted pairs so that images recur soon.

    Pairs follow the Z-order curve (Morton, 1966) through the matrix of images sorted by
    name: a cache of any number of images serves a square of that side.
    """
    names = set(pairs)
    images = sorted({image for pair in names for image in pair})
    # the binary digits of an index, interleaved with zeros
    spread = {image: int(f"{index:b}", base=4) for index, image in enumerate(images)}
    return sorted(names, key=lambda pair: 2 * spread[pair[0]] + spread[pair[1]])


def unmatched(
    root: Path,
    keypoints_type: str,
    pairs: Sequence[Names],
    states: Mapping[str, str],
    options: RunOptions,
) -> Sequence[Names]:
    """The pairs without up-to-date matches in a folder that another run writes.

    Args:
        root: of the matches.
        keypoints_type: that they count.
        pairs: in question.
        states: of the features of their images.
        options: whether all pairs are matched again.
    """
    if options.force:
        return pairs
    known = read_states(matches_folder(root, keypoints_type)) or {}
    there = find_matches([root], keypoints_type)
    return [
        pair
        for pair in pairs
        if any(known.get(image) != states[image] for image in pair)
        or not there.is_complete(*pair)
    ]


def require_usable(tables: LocalFeatureTables, pairs: Sequence[Names]) -> None:
    """Refuse a list without any pair that can be matched, before matching.

    Only the sizes of files are read.

    Raises:
        FeatureFormatError: every pair has an image whose features are missing, or whose
            keypoints and descriptors differ in number.
    """
    reasons: dict[str, str | None] = {}
    for pair in pairs:
        for image in pair:
            if image not in reasons:
                reasons[image] = unusable(tables, image)
        if not any(reasons[image] for image in pair):
            return
    found = next((reason for reason in reasons.values() if reason), None)
    if found is not None:
        raise FeatureFormatError(nothing_matched(pairs, found))


def unusable(tables: LocalFeatureTables, image: str) -> str | None:
    """Why the features of an image cannot be matched, judging by file sizes."""
    try:
        tables.check_counts(image)
    except FeatureFormatError as error:
        return str(error)
    return None


def nothing_matched(pairs: Sequence[Names], reason: str) -> str:
    """The one-line error if no pair can be matched."""
    return f"none of {len(pairs)} pairs can be matched; first: {reason}"


def empty_warning(
    tables: LocalFeatureTables, pairs: Sequence[Names]
) -> tuple[str, ...]:
    """The warning on images without any keypoint.

    Pairs with missing or broken features fail separately.
    """
    paired = sorted({image for pair in pairs for image in pair})
    empty = set()
    for image in paired:
        with suppress(FeatureFormatError):
            if tables.keypoints.count(image) == 0:
                empty.add(image)
    if not empty:
        return ()
    count = sum(not empty.isdisjoint(pair) for pair in pairs)
    return (
        f"{len(empty)} of {len(paired)} images have no keypoints: "
        f"{some_names(sorted(empty))}; their {count} pairs have no matches",
    )
