"""Turns of a set from turns between pairs: recovered exactly, errors outvoted."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from r2d2_kapture.config.rotations import TURNS
from r2d2_kapture.coordinates import Turn
from r2d2_kapture.matching.turn_graph import (
    TurnedPair,
    connected,
    quarter,
    solve_turns,
)


def true_turns(count: int, seed: int) -> dict[str, Turn]:
    rng = np.random.default_rng(seed)
    return {f"{i:02}": quarter(90 * int(rng.integers(4))) for i in range(count)}


def pair(
    truth: dict[str, Turn], one: str, other: str, inliers: int, off: int = 0
) -> TurnedPair:
    return TurnedPair(one, other, quarter(truth[one] - truth[other] + off), inliers)


@pytest.mark.parametrize("seed", range(3))
def test_turns_of_a_chain_are_those_against_the_fixed_image(seed: int) -> None:
    truth = true_turns(12, seed)
    names = list(truth)
    np.random.default_rng(seed).shuffle(names)
    pairs = [pair(truth, *two, inliers=20) for two in itertools.pairwise(names)]
    guesses: dict[str, Turn] = {name: 0 for name in names[1:]}
    found = solve_turns(guesses, pairs, {names[0]: truth[names[0]]})
    assert found == {name: truth[name] for name in guesses}


def test_wrong_pairs_are_outvoted_even_where_one_has_most_inliers() -> None:
    truth = true_turns(8, 5)
    names = sorted(truth)
    pairs = [
        pair(truth, one, other, inliers=40)
        for one, other in itertools.combinations(names, 2)
    ]
    pairs.append(pair(truth, names[0], names[1], inliers=90, off=90))
    found = solve_turns({n: 0 for n in names[1:]}, pairs, {names[0]: truth[names[0]]})
    assert found == {name: truth[name] for name in names[1:]}


def test_a_part_keeps_as_many_guesses_as_it_can() -> None:
    names = ["a", "b", "c"]
    guesses: dict[str, Turn] = {"a": 90, "b": 90, "c": 0}
    truth: dict[str, Turn] = {"a": 0, "b": 0, "c": 180}
    pairs = [pair(truth, *two, inliers=30) for two in itertools.pairwise(names)]
    assert solve_turns(guesses, pairs, {}) == {"a": 90, "b": 90, "c": 270}


def test_images_without_pairs_keep_their_guess() -> None:
    guesses: dict[str, Turn] = {"a": 270, "b": 0}
    assert solve_turns(guesses, [], {"c": 180}) == guesses


def test_parts_are_listed_by_size_after_that_of_the_fixed_images() -> None:
    pairs = [TurnedPair(*two, 0, 20) for two in ("ab", "bc", "de")]
    assert connected("abcdefg", pairs) == [["a", "b", "c"], ["d", "e"], ["f"], ["g"]]
    assert connected("abcdefg", pairs, fixed="fd")[0] == ["d", "e", "f"]


def test_the_order_of_pairs_does_not_matter() -> None:
    truth = true_turns(6, 1)
    rng = np.random.default_rng(1)
    pairs = [
        pair(truth, *two, inliers=int(rng.integers(20, 25)), off=90 * (i % 5 == 0))
        for i, two in enumerate(itertools.combinations(sorted(truth), 2))
    ]
    guesses: dict[str, Turn] = {name: 0 for name in truth}
    assert solve_turns(guesses, pairs, {}) == solve_turns(guesses, pairs[::-1], {})


def test_multiples_of_a_quarter_are_turns() -> None:
    assert [quarter(degrees) for degrees in (-90, 360, 450, -180)] == [270, 0, 90, 180]
    assert [quarter(turn) for turn in TURNS] == list(TURNS)
