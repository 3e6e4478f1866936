"""The picture of README: matches of a pair, and the map, of the rendered scene.

make demo && .venv/bin/python docs/site/picture.py demo
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

from PIL import Image

import r2d2_kapture as rk

HEIGHT = 520
PICTURE = Path(__file__).parents[1] / "images" / "demo.jpg"


def main(demo: Path) -> None:
    """Draw from the output of the demo."""
    images = demo / "mapping" / "sensors" / "records_data" / "mapping"
    path1, path2 = images / "0000.jpg", images / "0002.jpg"
    extractor = rk.load_extractor("fast_r2d2_v4", top_k=1000)
    a, b = extractor(path1), extractor(path2)
    verified = rk.verify(a, b, rk.match(a, b))
    drawn = io.BytesIO()
    rk.plot_matches(path1, path2, a, b, verified).savefig(drawn, format="png")
    parts = [Image.open(drawn), Image.open(demo / "work" / "map" / "map.png")]
    scaled = [p.resize((p.width * HEIGHT // p.height, HEIGHT)) for p in parts]
    picture = Image.new("RGB", (sum(p.width for p in scaled), HEIGHT), "white")
    left = 0
    for part in scaled:
        picture.paste(part.convert("RGB"), (left, 0))
        left += part.width
    picture.save(PICTURE, quality=80, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
