"""Quarter turns of all images of a set from those between pairs of them.

Each verified pair says by how much one image is turned against the other, and its
inliers are its weight. The heaviest pairs are joined first (a maximum spanning tree,
with the four turns as a group); then each image takes the turn that most inliers of all
its pairs vote for. What a connected part of the set has in common stays open: it takes
the turn of its images that are fixed, else the one that keeps most of the guesses.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from r2d2_kapture.config.rotations import TURNS
from r2d2_kapture.coordinates import Turn

SWEEPS = 10


class TurnedPair(NamedTuple):
    """Two images that match when the first one is turned against the second.

    Attributes:
        first, second: names of the images.
        turn: degrees clockwise by which the first is to be turned more than the second.
        inliers: of their geometry.
    """

    first: str
    second: str
    turn: Turn
    inliers: int


Votes = Mapping[str, Sequence[tuple[str, Turn, int]]]


def quarter(degrees: int) -> Turn:
    """The turn that is equal to a multiple of 90 degrees."""
    return TURNS[degrees // 90 % 4]


def connected(
    names: Iterable[str], pairs: Iterable[TurnedPair], fixed: Iterable[str] = ()
) -> list[list[str]]:
    """Parts of the set that pairs connect, the largest first; equal ones by name.

    All ``fixed`` images are in one part, which comes first.
    """
    forest = _Forest(names, {name: 0 for name in fixed})
    for pair in pairs:
        forest.join(pair)
    parts: dict[str, list[str]] = defaultdict(list)
    for name in forest.names:
        parts[forest.root(name)[0]].append(name)
    known = set(fixed)
    return sorted(
        parts.values(), key=lambda part: (known.isdisjoint(part), -len(part), part)
    )


def solve_turns(
    guesses: Mapping[str, Turn],
    pairs: Sequence[TurnedPair],
    fixed: Mapping[str, Turn],
) -> dict[str, Turn]:
    """The turn of every image.

    Args:
        guesses: of the images that are not fixed.
        pairs: whose images have a guess or are fixed.
        fixed: turns that stay.

    Returns:
        The turns of the images with a guess.
    """
    forest = _Forest((*guesses, *fixed), fixed)
    for pair in sorted(pairs, key=lambda pair: (-pair.inliers, pair)):
        forest.join(pair)
    turns = {name: forest.root(name)[1] for name in forest.names}
    votes = _votes(pairs)
    _take_votes(turns, votes, fixed)
    parts: dict[str, list[str]] = defaultdict(list)
    for name in guesses:
        parts[forest.root(name)[0]].append(name)
    anchored = {forest.root(name)[0] for name in fixed}
    found: dict[str, Turn] = {}
    for root, part in parts.items():
        kept = Counter(quarter(guesses[name] - turns[name]) for name in part)
        # of equally many, the least turn
        common = 0 if root in anchored else min(TURNS, key=lambda t: (-kept[t], t))
        found |= {name: quarter(turns[name] + common) for name in part}
    return found


def _votes(pairs: Iterable[TurnedPair]) -> Votes:
    """The pairs of each image: partner, its own turn against it, inliers."""
    votes: dict[str, list[tuple[str, Turn, int]]] = defaultdict(list)
    for first, second, turn, inliers in pairs:
        votes[first].append((second, turn, inliers))
        votes[second].append((first, quarter(-turn), inliers))
    return votes


def _take_votes(
    turns: dict[str, Turn], votes: Votes, fixed: Mapping[str, Turn]
) -> None:
    """Let images change to the turn of most inliers until none does."""
    for _ in range(SWEEPS):
        changed = False
        for name in sorted(votes.keys() - fixed.keys()):
            inliers: Counter[Turn] = Counter()
            for partner, turn, weight in votes[name]:
                inliers[quarter(turns[partner] + turn)] += weight
            best = max(TURNS, key=lambda t: (inliers[t], t == turns[name], -t))
            changed |= best != turns[name]
            turns[name] = best
        if not changed:
            return


class _Forest:
    """Disjoint sets of images with turns against their roots.

    Args:
        names: of all images.
        fixed: turns of images of one tree, whose root is as stored.
    """

    def __init__(self, names: Iterable[str], fixed: Mapping[str, Turn]) -> None:
        self.names = sorted(names)
        self._above: dict[str, tuple[str, Turn]] = {n: (n, 0) for n in self.names}
        for name, turn in fixed.items():
            self._above[name] = "", turn
        self._above[""] = "", 0

    def root(self, name: str) -> tuple[str, Turn]:
        """The root of an image's tree, and the image's turn against it."""
        path = []
        while self._above[name][0] != name:
            path.append(name)
            name = self._above[name][0]
        turn: Turn = 0
        for passed in reversed(path):
            turn = quarter(self._above[passed][1] + turn)
            self._above[passed] = name, turn
        return name, turn

    def join(self, pair: TurnedPair) -> None:
        """Put two images into one tree, unless they are."""
        root1, turn1 = self.root(pair.first)
        root2, turn2 = self.root(pair.second)
        if root1 == root2:
            return
        # the tree of fixed images keeps its root
        if root1 == "":
            self._above[root2] = root1, quarter(turn1 - pair.turn - turn2)
        else:
            self._above[root1] = root2, quarter(turn2 + pair.turn - turn1)
