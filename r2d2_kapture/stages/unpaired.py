"""Images without a pair, which no later stage processes and the report names."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from r2d2_kapture.config.pairs import PairMethod
from r2d2_kapture.types import some_names

OTHER_METHOD = (
    "pair them with another --method, and join both lists with --method merge"
)
REASONS: Mapping[PairMethod, str] = {
    "exhaustive": "there is no other image",
    "sequential": "single photographs are not in a sequence of a camera or rig, nor "
    "are those between two gaps longer than --max-interval; " + OTHER_METHOD,
    "poses": "without a pose, or without a nearby camera of similar direction; raise "
    "--max-distance or --max-angle, lower --min-distance, or " + OTHER_METHOD,
    "gnss": "without a GNSS position, or without another image in reach; raise "
    "--max-distance, or " + OTHER_METHOD,
    "covisibility": "not in the map, or without points in common with others; "
    + OTHER_METHOD,
    "global": "without features, or not similar enough; lower --min-score, or "
    + OTHER_METHOD,
    "local": "without keypoints, or not similar enough; lower --min-score, or "
    + OTHER_METHOD,
    "lowres": "without matches at low resolution; raise --lowres-candidates or "
    "--lowres-keypoints, or " + OTHER_METHOD,
    "fuse": "not in any list of --merge, or not among the best of another image; "
    "raise --top-k, or add a list with them",
    "merge": "not in any list of --merge; add one with them",
}
"""Why an image may be without a pair, and the way out."""


def find_unpaired(
    names: Iterable[str], pairs: Iterable[tuple[str, str]]
) -> tuple[str, ...]:
    """The images without a pair, in order of names."""
    paired = {name for pair in pairs for name in pair}
    return tuple(sorted(set(names) - paired))


def unpaired_warning(
    unpaired: Collection[str], total: int, reason: str
) -> tuple[str, ...]:
    """The warning on images without a pair.

    Args:
        unpaired: their names, in order.
        total: number of images to be paired.
        reason: why, or what follows, and the way out.
    """
    if not unpaired:
        return ()
    return (
        f"{len(unpaired)} of {total} images are in no pair: {some_names(unpaired)}; "
        f"{reason}",
    )
