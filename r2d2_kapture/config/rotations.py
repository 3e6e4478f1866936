"""How images are turned before the network sees them: the values of ``--rotations``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from r2d2_kapture.coordinates import Turn
from r2d2_kapture.errors import ConfigError

TURNS: tuple[Turn, ...] = get_args(Turn)
CHOICES: dict[str, tuple[Turn, ...]] = {
    "off": (0,),
    "auto": TURNS,
    "0,180": (0, 180),
    "90,270": (90, 270),
    **{str(turn): (turn,) for turn in TURNS},
}
EXIF = "exif"


@dataclass(frozen=True, kw_only=True)
class Rotations:
    """Which quarter turns images may get.

    Attributes:
        text: as typed.
        turns: to choose from by matching; a single one is that of every image.
        exif: whether EXIF's orientation is the turn, or the first guess of it.
    """

    text: str
    turns: tuple[Turn, ...]
    exif: bool

    @property
    def is_off(self) -> bool:
        """Whether every image stays as stored."""
        return self.turns == (0,) and not self.exif

    @property
    def by_matching(self) -> bool:
        """Whether there is a choice that matches decide."""
        return len(self.turns) > 1 and self.text != EXIF


def read_rotations(text: str) -> Rotations:
    """The rotations that a flag asks for.

    Raises:
        ConfigError: another text.
    """
    typed = "".join(text.lower().split())
    if typed == EXIF:
        return Rotations(text=EXIF, turns=TURNS, exif=True)
    if typed not in CHOICES:
        raise ConfigError(
            f"--rotations {text}: expected off, exif, auto, one turn clockwise for all "
            "images (90, 180 or 270 degrees), or two to choose from (0,180 or 90,270)"
        )
    turns = CHOICES[typed]
    name = "off" if turns == (0,) else typed
    return Rotations(text=name, turns=turns, exif=len(turns) > 1)


OFF = read_rotations("off")
