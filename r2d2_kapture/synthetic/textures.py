"""Seeded textures, full of structure at many sizes: paintings, bricks, books.

Every texture is a function ``(rng, size) -> (H, W, 3) float32 RGB in 0..1`` of a random
generator and a size (W, H) in texels. The same generator state gives the same texture.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

FloatArray = npt.NDArray[np.float32]
Size = tuple[int, int]
Color = tuple[int, int, int]
Box = tuple[float, float, float, float]
TextureMaker = Callable[[np.random.Generator, Size], FloatArray]

SUPERSAMPLING = 2


def canvas(size: Size, color: Color) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """A blank picture larger than ``size`` by SUPERSAMPLING, and its pen."""
    width, height = size
    picture = Image.new("RGB", (width * SUPERSAMPLING, height * SUPERSAMPLING), color)
    return picture, ImageDraw.Draw(picture)


def reduced(picture: Image.Image) -> FloatArray:
    """The picture averaged down by SUPERSAMPLING, which smooths every edge drawn."""
    colors = np.asarray(picture.reduce(SUPERSAMPLING), dtype=np.float32)
    return colors / np.float32(255)


def random_color(
    rng: np.random.Generator,
    low: float = 0.1,
    high: float = 0.95,
    saturation: float = 0.75,
) -> Color:
    """A colour of any hue, of brightness ``low`` to ``high``, at most so saturated."""
    hue, purity = rng.random(), saturation * np.sqrt(rng.random())
    red, green, blue = colorsys.hsv_to_rgb(hue, purity, rng.uniform(low, high))
    return int(255 * red), int(255 * green), int(255 * blue)


def tinted(rng: np.random.Generator, color: Color, spread: float) -> Color:
    """``color`` lighter or darker by up to ``spread``, its hue shifted a little."""
    factor = 1 + rng.uniform(-spread, spread) + rng.uniform(-spread, spread, size=3) / 4
    red, green, blue = np.clip(np.array(color) * factor, 0, 255)
    return int(red), int(green), int(blue)


def noise(
    rng: np.random.Generator,
    size: Size,
    coarsest: float = 256.0,
    roughness: float = 0.6,
) -> FloatArray:
    """Smooth noise summed over octaves.

    Args:
        rng: source of randomness.
        size: (W, H) in texels.
        coarsest: size in texels of the largest blobs; each octave halves it, down to 2.
        roughness: amplitude of an octave relative to the one above it.

    Returns:
        (H, W) float32 of mean near 0 and standard deviation 1.
    """
    width, height = size
    total = np.zeros((height, width), dtype=np.float32)
    blob, amplitude = coarsest, 1.0
    while blob >= 2:
        # two more cells than needed, so that a coarse grid is never constant
        cells = (int(height / blob) + 3, int(width / blob) + 3)
        grid = Image.fromarray(rng.standard_normal(cells, dtype=np.float32))
        box = (0.5, 0.5, 0.5 + width / blob, 0.5 + height / blob)
        octave = grid.resize(size, Image.Resampling.BICUBIC, box=box)
        total += amplitude * np.asarray(octave)
        blob, amplitude = blob / 2, amplitude * roughness
    normalized: FloatArray = (total - total.mean()) / total.std()
    return normalized


def grained(
    rng: np.random.Generator, texture: FloatArray, amount: float, coarsest: float = 64.0
) -> FloatArray:
    """``texture`` (H, W, 3), its brightness varied by noise of relative ``amount``."""
    height, width = texture.shape[:2]
    gain = 1 + amount * noise(rng, (width, height), coarsest)
    return np.clip(texture * gain[..., None], 0, 1)


def draw_polygon(
    rng: np.random.Generator, pen: ImageDraw.ImageDraw, box: Box, color: Color
) -> None:
    """Fill an irregular polygon of 3 to 7 corners inside ``box``."""
    left, top, right, bottom = box
    count = int(rng.integers(3, 8))
    angles = np.sort(rng.uniform(0, 2 * np.pi, count))
    radii = rng.uniform(0.5, 1.0, count)
    x = (left + right) / 2 + radii * np.cos(angles) * (right - left) / 2
    y = (top + bottom) / 2 + radii * np.sin(angles) * (bottom - top) / 2
    pen.polygon(list(zip(x.tolist(), y.tolist())), fill=color)


def draw_stroke(
    rng: np.random.Generator, pen: ImageDraw.ImageDraw, box: Box, color: Color
) -> None:
    """Draw a bent brush stroke through ``box``."""
    left, top, right, bottom = box
    knots = int(rng.integers(3, 6))
    x, y = rng.uniform(left, right, knots), rng.uniform(top, bottom, knots)
    width = max(2, int((right - left) * rng.uniform(0.03, 0.1)))
    pen.line(list(zip(x.tolist(), y.tolist())), fill=color, width=width, joint="curve")


def draw_shape(
    rng: np.random.Generator, pen: ImageDraw.ImageDraw, box: Box, color: Color
) -> None:
    """Draw a polygon, an ellipse, a ring or a stroke that fills ``box``."""
    kind = int(rng.integers(5))
    if kind <= 1:
        draw_polygon(rng, pen, box, color)
    elif kind == 2:
        pen.ellipse(box, fill=color)
    elif kind == 3:
        thickness = max(2, int((box[2] - box[0]) * rng.uniform(0.06, 0.2)))
        pen.ellipse(box, outline=color, width=thickness)
    else:
        draw_stroke(rng, pen, box, color)


def draw_painting(
    rng: np.random.Generator, picture: Image.Image, box: Box, density: float = 1.0
) -> None:
    """Fill ``box`` with random shapes, from large ones below to small ones on top.

    Sizes follow a power law, as in natural images: as much structure at every scale.
    ``density`` multiplies the number of shapes.
    """
    left, top, right, bottom = (round(edge) for edge in box)
    width, height = max(1, right - left), max(1, bottom - top)
    extent = min(width, height)
    largest, smallest = max(0.8 * extent, 10.0), 10.0
    octaves = np.log2(largest / smallest)
    count = int(density * 36 * octaves * width * height / extent**2)
    hues = [random_color(rng) for _ in range(8)]
    palette = [tinted(rng, hue, 0.3) for hue in hues for _ in range(6)]
    # a picture of its own, so that shapes are cut at its border
    painted = Image.new("RGB", (width, height), palette[0])
    pen = ImageDraw.Draw(painted)
    for size in largest * (smallest / largest) ** np.linspace(0, 1, count):
        half_width, half_height = size * rng.uniform(0.25, 0.5, size=2)
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        color = palette[int(rng.integers(len(palette)))]
        shape = (x - half_width, y - half_height, x + half_width, y + half_height)
        draw_shape(rng, pen, shape, color)
    picture.paste(painted, (left, top))


def draw_framed_painting(
    rng: np.random.Generator, picture: Image.Image, box: Box
) -> None:
    """Draw a painting with a frame and a mount inside ``box``."""
    pen = ImageDraw.Draw(picture)
    left, top, right, bottom = box
    frame = 0.05 * min(right - left, bottom - top)
    shadow = 0.6 * frame
    pen.rectangle(
        (left + shadow, top + shadow, right + shadow, bottom + shadow),
        fill=(70, 65, 60),
    )
    pen.rectangle(box, fill=random_color(rng, 0.05, 0.5))
    mount = (left + frame, top + frame, right - frame, bottom - frame)
    pen.rectangle(mount, fill=tinted(rng, (225, 220, 205), 0.1))
    inner = 2.2 * frame
    draw_painting(
        rng, picture, (left + inner, top + inner, right - inner, bottom - inner)
    )


def draw_text_block(
    rng: np.random.Generator, pen: ImageDraw.ImageDraw, box: Box, color: Color
) -> None:
    """Fill ``box`` with lines of glyph-like strokes of one size."""
    left, top, right, bottom = box
    height = max(10.0, (bottom - top) / max(1, round((bottom - top) / 34)))
    for line_top in np.arange(top, bottom - 0.7 * height, height):
        x = left
        line_end = right - rng.uniform(0, 0.3) * (right - left)
        while x < line_end:
            advance = height * rng.uniform(0.35, 0.6)
            if rng.random() > 0.16:
                glyph = (x, line_top, x + 0.8 * advance, line_top + 0.7 * height)
                knots = [
                    (glyph[2 * i], glyph[2 * j + 1]) for i in (0, 1) for j in (0, 1)
                ]
                chosen = rng.permutation(4)[: int(rng.integers(2, 5))]
                thickness = max(2, int(0.12 * height))
                pen.line([knots[i] for i in chosen], fill=color, width=thickness)
            x += advance


def painting(rng: np.random.Generator, size: Size) -> FloatArray:
    """An abstract painting without a frame."""
    picture, _ = canvas(size, (0, 0, 0))
    draw_painting(rng, picture, (0, 0, *picture.size))
    return grained(rng, reduced(picture), 0.05)


def poster(rng: np.random.Generator, size: Size) -> FloatArray:
    """A poster: a painting, a headline and paragraphs on coloured paper."""
    paper = random_color(rng, 0.8, 0.95, 0.25)
    ink = random_color(rng, 0.0, 0.3)
    picture, pen = canvas(size, paper)
    width, height = picture.size
    margin = 0.06 * width
    middle = height * rng.uniform(0.5, 0.65)
    headline = middle + 0.12 * height
    draw_painting(rng, picture, (margin, margin, width - margin, middle), 0.7)
    x = 2 * margin
    while x < width - 2 * margin:
        stem = rng.uniform(0.04, 0.09) * width
        box = (x, middle + 0.02 * height, x + stem, headline - 0.02 * height)
        draw_shape(rng, pen, box, ink)
        x += 1.3 * stem
    column = (width - 3 * margin) / 2
    for left in (margin, 2 * margin + column):
        box = (left, headline, left + column, height - margin)
        draw_text_block(rng, pen, box, ink)
    return grained(rng, reduced(picture), 0.03)


def gallery(rng: np.random.Generator, size: Size) -> FloatArray:
    """A plastered wall covered with framed paintings of many sizes."""
    picture, _ = canvas(size, random_color(rng, 0.65, 0.85, 0.3))
    width, height = picture.size
    x = 0.04 * height
    while x < width - 0.12 * height:
        column = min(rng.uniform(0.22, 0.5) * height, width - x - 0.04 * height)
        y = rng.uniform(0.03, 0.1) * height
        while y < 0.8 * height:
            extent = min(rng.uniform(0.2, 0.5) * height, 0.97 * height - y)
            draw_framed_painting(rng, picture, (x, y, x + column, y + extent))
            y += extent + rng.uniform(0.04, 0.08) * height
        x += column + rng.uniform(0.04, 0.08) * height
    return grained(rng, reduced(picture), 0.05, coarsest=128)


def bricks(rng: np.random.Generator, size: Size) -> FloatArray:
    """A wall of chipped bricks of their own colours, painted over and with posters."""
    picture, pen = canvas(size, tinted(rng, (165, 155, 145), 0.1))
    width, height = picture.size
    base = tinted(rng, (150, 80, 60), 0.2)
    course = height / round(height / 44)
    for row in range(round(height / course)):
        top = row * course
        x = -rng.uniform(0, 2) * course
        while x < width:
            length = course * rng.uniform(1.6, 2.6)
            color = tinted(rng, base, 0.45)
            brick = (x, top, x + length - 5, top + course - 5)
            pen.rectangle(brick, fill=color)
            if rng.random() < 0.4:
                chip = rng.uniform(0.2, 0.7) * course
                left = x + rng.uniform(0, length - chip)
                draw_polygon(
                    rng,
                    pen,
                    (left, top, left + chip, top + chip),
                    tinted(rng, color, 0.5),
                )
            x += length
    for _ in range(int(9 * width / height)):
        extent = height * rng.uniform(0.06, 0.3)
        x, y = rng.uniform(0, width - extent), rng.uniform(0, height - extent)
        box = (x, y, x + extent, y + extent * rng.uniform(0.6, 1.0))
        if rng.random() < 0.5:
            draw_painting(rng, picture, box, 0.5)
        else:
            draw_stroke(rng, pen, box, random_color(rng))
    return grained(rng, reduced(picture), 0.1)


def bookshelf(rng: np.random.Generator, size: Size) -> FloatArray:
    """Shelves of books with titles, each of its own width, height and colour."""
    picture, pen = canvas(size, (45, 32, 24))
    width, height = picture.size
    shelf = height / round(height / 190)
    for row in range(round(height / shelf)):
        floor = (row + 1) * shelf - 0.07 * shelf
        x = rng.uniform(0, 0.05) * shelf
        while x < width:
            thickness = shelf * rng.uniform(0.08, 0.26)
            top = floor - shelf * rng.uniform(0.55, 0.88)
            cover = random_color(rng, 0.08, 0.85)
            ink = random_color(rng, 0.6, 1.0)
            pen.rectangle((x, top, x + thickness - 3, floor), fill=cover)
            for _ in range(int(rng.integers(1, 5))):
                band = rng.uniform(top, floor - 0.1 * shelf)
                depth = rng.uniform(0.02, 0.12) * shelf
                pen.rectangle((x, band, x + thickness - 3, band + depth), fill=ink)
                ink = tinted(rng, ink, 0.5)
            emblem = 0.7 * thickness
            y = rng.uniform(top, floor - emblem)
            box = (x + 0.1 * thickness, y, x + 0.1 * thickness + emblem, y + emblem)
            draw_shape(rng, pen, box, random_color(rng))
            x += thickness + (rng.random() < 0.08) * rng.uniform(0, 0.3) * shelf
        wood = tinted(rng, (140, 100, 65), 0.15)
        pen.rectangle((0, floor, width, (row + 1) * shelf), fill=wood)
    return grained(rng, reduced(picture), 0.06)


def planks(rng: np.random.Generator, size: Size) -> FloatArray:
    """A wooden floor with knots, stains and a patterned rug."""
    picture, pen = canvas(size, (40, 28, 20))
    width, height = picture.size
    plank = height / round(height / 60)
    for row in range(round(height / plank)):
        top = row * plank
        x = -rng.uniform(0, 600)
        while x < width:
            length = rng.uniform(250, 900)
            wood = tinted(rng, (165, 120, 80), 0.3)
            pen.rectangle((x, top, x + length - 4, top + plank - 4), fill=wood)
            for _ in range(int(rng.integers(2, 7))):
                knot = rng.uniform(0.1, 0.45) * plank
                left = x + rng.uniform(0, length - knot)
                y = top + rng.uniform(0, plank - knot)
                pen.ellipse(
                    (left, y, left + knot * rng.uniform(1, 2), y + knot),
                    fill=tinted(rng, (95, 62, 40), 0.4),
                )
            x += length
    wooden = grained(rng, reduced(picture), 0.1)
    rug = painting(rng, (size[0] // 2, size[1] // 2))
    top, left = size[1] // 4, size[0] // 4
    wooden[top : top + len(rug), left : left + rug.shape[1]] = rug
    return wooden


def crate(rng: np.random.Generator, size: Size) -> FloatArray:
    """The side of a shipping crate: boards, stencils, labels and scratches."""
    color = tinted(rng, (175, 130, 85), 0.25)
    picture, pen = canvas(size, tinted(rng, color, 0.3))
    width, height = picture.size
    boards = int(rng.integers(4, 8))
    for board in range(boards):
        top = board * height / boards
        pen.rectangle(
            (0, top, width, top + height / boards - 6), fill=tinted(rng, color, 0.25)
        )
    for _ in range(14):
        extent = width * rng.uniform(0.08, 0.4)
        x, y = rng.uniform(0, width - extent), rng.uniform(0, height - extent / 2)
        box = (x, y, x + extent, y + extent / 2)
        if rng.random() < 0.5:
            pen.rectangle(box, fill=random_color(rng, 0.7, 1.0, 0.4))
            draw_text_block(rng, pen, box, random_color(rng, 0.0, 0.3))
        else:
            draw_painting(rng, picture, box, 0.5)
    return grained(rng, reduced(picture), 0.1)


def ceiling(rng: np.random.Generator, size: Size) -> FloatArray:
    """A pale painted ceiling: soft shapes on plaster."""
    picture, _ = canvas(size, (200, 205, 210))
    draw_painting(rng, picture, (0, 0, *picture.size))
    return grained(rng, 0.7 + 0.25 * reduced(picture), 0.05)
