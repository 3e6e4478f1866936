"""Images that no pair mentions: no later stage meets them, so they are named."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from r2d2_kapture.config.pairs import PairMethod
from r2d2_kapture.types import some_names

OTHER_METHOD = "pair them by another --method, and join both lists by --method merge"
REASONS: Mapping[PairMethod, str] = {
    "exhaustive": "there is no other image",
    "sequential": "single photographs are in no sequence of a camera or rig; "
    + OTHER_METHOD,
    "poses": "without pose, or with no camera of like direction near by; raise "
    "--max-distance or --max-angle, or " + OTHER_METHOD,
    "covisibility": "not in the map, or without points in common with others; "
    + OTHER_METHOD,
    "global": "without features, or not alike enough; lower --min-score, or "
    + OTHER_METHOD,
    "local": "without keypoints, or not alike enough; lower --min-score, or "
    + OTHER_METHOD,
    "merge": "no list of --merge names them; add one that does",
}
"""Why an image may be without a pair, and the way out."""


def find_unpaired(
    names: Iterable[str], pairs: Iterable[tuple[str, str]]
) -> tuple[str, ...]:
    """The images that are in no pair, in order of names."""
    paired = {name for pair in pairs for name in pair}
    return tuple(sorted(set(names) - paired))


def unpaired_warning(
    unpaired: Collection[str], total: int, reason: str
) -> tuple[str, ...]:
    """What a report says of images without a pair; nothing where there is none.

    Args:
        unpaired: their names, in order.
        total: images that pairs were sought for.
        reason: why, or what follows, and the way out.
    """
    if not unpaired:
        return ()
    return (
        f"{len(unpaired)} of {total} images are in no pair: {some_names(unpaired)}; "
        f"{reason}",
    )
