"""Images of every kind in, RGB as stored or one line of ImageError out."""

import io
import random
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from r2d2_kapture.errors import DatasetError, ImageError
from r2d2_kapture.io import images
from r2d2_kapture.io.images import image_size, list_images, read_rgb

ORIENTATION = 274
LOSSLESS = {
    "png": {},
    "ppm": {},
    "bmp": {},
    "tif": {},
    "tiff": {"compression": "tiff_lzw"},
    "webp": {"lossless": True},
    "jp2": {},
}


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def noise(width=30, height=20, channels=3, seed=0):
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def saved(path, array, mode=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def encoded(format_name, mode="RGB", **options):
    buffer = io.BytesIO()
    Image.fromarray(noise()).convert(mode).save(buffer, format_name, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("suffix", LOSSLESS)
def test_lossless_formats_come_back_exactly(tmp_path, suffix):
    path = saved(tmp_path / f"a.{suffix}", noise(), **LOSSLESS[suffix])
    rgb = read_rgb(path)
    np.testing.assert_array_equal(rgb, noise())
    assert rgb.dtype == np.uint8
    assert rgb.flags.c_contiguous and rgb.flags.writeable
    assert image_size(path) == (30, 20)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_jpeg(tmp_path, mode):
    flat = np.full((20, 30, 3), 120, dtype=np.uint8)
    path = saved(tmp_path / "a.jpg", flat, mode, quality=95)
    np.testing.assert_allclose(read_rgb(path), flat, atol=3)


@pytest.mark.parametrize("size", [(1, 1), (50, 4000), (4000, 50), (1, 7)])
def test_extreme_sizes(tmp_path, size):
    path = saved(tmp_path / "a.png", noise(*size))
    assert read_rgb(path).shape == (size[1], size[0], 3)
    assert image_size(path) == size


@pytest.mark.parametrize("name", ["a b.png", "a,b.png", "été.png", "図 1,é.png"])
def test_names(tmp_path, name):
    path = saved(tmp_path / "dossier é, 1" / name, noise())
    np.testing.assert_array_equal(read_rgb(path), noise())


def test_grey_is_repeated(tmp_path):
    grey = noise(channels=1)
    path = saved(tmp_path / "a.png", grey)
    np.testing.assert_array_equal(read_rgb(path), np.stack([grey] * 3, axis=2))


@pytest.mark.parametrize("channels", [2, 4])
def test_alpha_is_dropped_not_blended(tmp_path, channels):
    array = noise(channels=channels)
    path = saved(tmp_path / "a.png", array)
    colour = array[:, :, :-1]
    np.testing.assert_array_equal(read_rgb(path), np.broadcast_to(colour, (20, 30, 3)))


@pytest.mark.parametrize("transparency", [None, 3, bytes(range(256))])
def test_palette(tmp_path, transparency):
    image = Image.fromarray(noise()).quantize(64)
    options = {} if transparency is None else {"transparency": transparency}
    image.save(tmp_path / "a.png", **options)
    expected = np.array(image.convert("RGB"))
    np.testing.assert_array_equal(read_rgb(tmp_path / "a.png"), expected)


def test_one_bit(tmp_path):
    bits = noise(channels=1) > 127
    path = saved(tmp_path / "a.png", bits)
    np.testing.assert_array_equal(read_rgb(path)[:, :, 1], np.where(bits, 255, 0))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_grey_is_scaled_not_clipped(tmp_path, suffix):
    grey = np.array([[0, 128, 129, 257, 32768, 65407, 65535]], dtype=np.uint16)
    path = saved(tmp_path / f"a.{suffix}", grey)
    expected = np.round(grey / 257)
    np.testing.assert_array_equal(read_rgb(path)[:, :, 0], expected)
    np.testing.assert_array_equal(read_rgb(path)[:, :, 2], expected)


def test_big_endian_16_bit_tiff(tmp_path):
    grey = np.array([[0, 257, 65535]], dtype=np.uint16)
    image = Image.frombytes("I;16B", (3, 1), grey.astype(">u2").tobytes())
    image.save(tmp_path / "a.tif")
    np.testing.assert_array_equal(read_rgb(tmp_path / "a.tif")[0, :, 0], [0, 1, 255])


def test_pgm_of_1000_grey_values(tmp_path):
    (tmp_path / "a.pgm").write_bytes(b"P2 3 1 1000 0 500 1000")
    np.testing.assert_array_equal(read_rgb(tmp_path / "a.pgm")[0, :, 0], [0, 128, 255])


@pytest.mark.parametrize("value", [-1, 65536])
def test_grey_beyond_16_bits_is_refused(tmp_path, value):
    path = saved(tmp_path / "a.tif", np.full((2, 2), value, dtype=np.int32))
    with pytest.raises(ImageError, match=f"from {value} to {value}, expected 0 to"):
        read_rgb(path)


def test_floating_point_grey_is_refused(tmp_path):
    path = saved(tmp_path / "a.tif", np.full((2, 2), 0.5, dtype=np.float32))
    with pytest.raises(ImageError, match="floating point"):
        read_rgb(path)


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
def test_the_first_frame_is_read(tmp_path, suffix):
    frames = [Image.new("RGB", (30, 20), colour) for colour in ("red", "blue")]
    options = {"lossless": True} if suffix == "webp" else {}
    path = tmp_path / f"a.{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:], **options)
    assert (read_rgb(path) == (255, 0, 0)).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "webp", "tif", "tiff"])
def test_orientation_is_not_applied(tmp_path, suffix, orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = saved(tmp_path / f"a.{suffix}", noise(), exif=exif, **LOSSLESS[suffix])
    np.testing.assert_array_equal(read_rgb(path), noise())
    assert image_size(path) == (30, 20)


@pytest.mark.parametrize("orientation", [1, 6])
def test_orientation_of_a_jpeg_is_not_applied(tmp_path, orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = saved(tmp_path / "a.jpg", noise(), exif=exif)
    assert read_rgb(path).shape == (20, 30, 3)
    assert image_size(path) == (30, 20)


@pytest.mark.parametrize("suffix", ["png", "ppm", "bmp", "tif", "tiff", "jp2", "jpg"])
def test_photographs_above_the_limit_of_pillow_are_read(tmp_path, monkeypatch, suffix):
    path = saved(tmp_path / f"a.{suffix}", noise())
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert read_rgb(path).shape == (20, 30, 3)


def test_a_photograph_of_200_megapixels_has_a_size(tmp_path):
    Image.new("1", (20000, 10000)).save(tmp_path / "a.png")
    assert image_size(tmp_path / "a.png") == (20000, 10000)


@pytest.mark.parametrize("read", [read_rgb, image_size])
def test_a_decompression_bomb_is_refused_by_its_header(tmp_path, read):
    (tmp_path / "a.ppm").write_bytes(b"P6 60000 60000 255\n")
    with pytest.raises(ImageError, match="60000 x 60000 pixels, expected at most 500"):
        read(tmp_path / "a.ppm")


@pytest.mark.parametrize("read", [read_rgb, image_size])
@pytest.mark.parametrize(
    ("content", "found"),
    [
        (None, "found no such file"),
        (b"", "found an empty file"),
        (b"P", "found no known image format"),
        (b"a page of text\n" * 100, "found no known image format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "found no known image format"),
        (b"\xff\xd8\xff", "broken"),
        (b"\x89PNG\r\n\x1a\n", "broken"),
        (b"P6 3 x 255\n", "broken"),
    ],
)
def test_what_is_no_image_gives_one_line(tmp_path, read, content, found):
    path = tmp_path / "photo 1,é.jpg"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ImageError, match=found) as raised:
        read(path)
    message = str(raised.value)
    assert message.startswith(f"{path}: found") and "expected" in message
    assert "\n" not in message


@pytest.mark.parametrize("read", [read_rgb, image_size])
def test_a_folder_is_no_image(tmp_path, read):
    with pytest.raises(ImageError, match="found a folder"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("format_name", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("PNG", {}),
        ("PPM", {}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("WEBP", {}),
        ("GIF", {}),
        ("JPEG2000", {}),
    ],
)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_truncation_is_an_error_not_a_grey_filling(
    tmp_path, format_name, options, share
):
    data = encoded(format_name, **options)
    path = tmp_path / "a.img"
    path.write_bytes(data[: int(share * len(data))])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ImageError, match="a.img: found"):
            read_rgb(path)


def test_a_tiff_whose_strips_end_too_early_is_refused(tmp_path):
    path = saved(tmp_path / "a.tif", noise(), tiffinfo={278: 20})
    data = bytearray(path.read_bytes())
    rows = data.index((257).to_bytes(2, "little")) + 8
    data[rows : rows + 2] = (25).to_bytes(2, "little")
    path.write_bytes(data)
    with pytest.raises(ImageError, match="strips end before its last row"):
        read_rgb(path)


@pytest.mark.parametrize(
    ("format_name", "mode", "options"),
    [
        ("JPEG", "RGB", {}),
        ("JPEG", "CMYK", {}),
        ("PNG", "RGB", {}),
        ("PNG", "P", {}),
        ("PPM", "RGB", {}),
        ("BMP", "RGB", {}),
        ("TIFF", "RGB", {}),
        ("TIFF", "RGB", {"compression": "tiff_deflate"}),
        ("WEBP", "RGB", {}),
        ("GIF", "P", {}),
        ("JPEG2000", "RGB", {}),
    ],
)
def test_corrupted_bytes_give_pixels_or_image_error(
    tmp_path, monkeypatch, format_name, mode, options
):
    # a corrupted header may ask for a huge image, which is only slow
    monkeypatch.setattr(images, "MAX_PIXELS", 10**6)
    data = encoded(format_name, mode, **options)
    generator = random.Random(0)
    path = tmp_path / "a.img"
    for _ in range(60):
        broken = bytearray(data)
        for _ in range(generator.choice([1, 2, 8])):
            end = generator.choice([60, 200, len(data)])
            broken[generator.randrange(end)] = generator.choice([0, 127, 128, 255])
        path.write_bytes(broken)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for read in (read_rgb, image_size):
                try:
                    read(path)
                except ImageError as error:
                    assert "\n" not in str(error)


def test_threads_read_the_same(tmp_path):
    paths = [
        saved(tmp_path / f"{i}.{suffix}", noise(seed=i), **LOSSLESS[suffix])
        for i, suffix in enumerate([*LOSSLESS] * 4)
    ]
    with ThreadPoolExecutor(4) as pool:
        for i, rgb in enumerate(pool.map(read_rgb, paths)):
            np.testing.assert_array_equal(rgb, noise(seed=i))


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A folder with images and others, the current folder being its parent."""
    for name in (
        "b.png",
        "a.JPG",
        "sub dir/é, 1.tiff",
        "sub dir/deep/z.ppm",
        "sub dir/notes.txt",
        "c.heic",
        ".hidden.png",
        "none/readme.md",
    ):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)
    return Path("photos")


def test_a_folder_gives_its_images_recursively_and_sorted(tree):
    assert list_images(["photos"]) == [
        tree / "a.JPG",
        tree / "b.png",
        tree / "sub dir/deep/z.ppm",
        tree / "sub dir/é, 1.tiff",
    ]


def test_glob_patterns(tree):
    assert list_images(["photos/*"]) == [tree / "a.JPG", tree / "b.png"]
    assert list_images(["photos/**/*.tiff"]) == [tree / "sub dir/é, 1.tiff"]
    assert list_images(["photos/**/*.pp[mn]"]) == [tree / "sub dir/deep/z.ppm"]
    assert list_images([str(tree.resolve() / "?.png")]) == [tree.resolve() / "b.png"]


def test_the_order_is_as_given_and_a_file_comes_once(tree):
    absolute = str((tree / "b.png").resolve())
    (tree.parent / "link.png").symlink_to(absolute)
    patterns = ["photos/b.png", "photos/a.JPG", "photos/*", absolute, "link.png"]
    assert list_images(patterns) == [tree / "b.png", tree / "a.JPG"]


def test_a_plain_path_is_kept_even_if_missing(tree):
    patterns = ["photos/missing.jpg", "photos/b.png", "photos/c.heic"]
    assert list_images(patterns) == [Path(pattern) for pattern in patterns]


def test_a_name_that_exists_is_no_pattern(tree):
    literal = tree / "set [1]" / "a*.png"
    literal.parent.mkdir()
    literal.touch()
    (tree / "set 1").mkdir()
    (tree / "set 1" / "a*.png").touch()
    assert list_images([str(literal)]) == [literal]
    assert list_images([str(literal.parent)]) == [literal]
    assert list_images([str(literal.parent / "*.png")]) == [literal]


@pytest.mark.parametrize(
    "pattern", ["photos/none", "photos/*.webp", "nowhere/*.png", "photos/none/*"]
)
def test_a_folder_or_pattern_without_images_is_named(tree, pattern):
    with pytest.raises(DatasetError) as raised:
        list_images(["photos/b.png", pattern])
    assert str(raised.value).startswith(f"{pattern}: found no image")


def test_a_list_file(tree):
    listing = tree / "list.txt"
    lines = [
        "\ufeff# a comment",
        "",
        "photos/b.png",
        "  sub dir/é, 1.tiff\r",
        "#sub dir/deep/z.ppm",
        "missing.png",
        str((tree / "a.JPG").resolve()),
    ]
    listing.write_text("\n".join(lines), encoding="utf-8")
    assert list_images([str(listing)]) == [
        tree / "b.png",
        tree / "sub dir/é, 1.tiff",
        tree / "missing.png",
        (tree / "a.JPG").resolve(),
    ]


@pytest.mark.parametrize(
    "content", [None, b"", b"# nothing\n\n", b"a\0.\0p\0n\0g\0", b"\xff\xfea\0."]
)
def test_a_list_file_that_names_no_image_is_named(tmp_path, content):
    listing = tmp_path / "list.txt"
    if content is not None:
        listing.write_bytes(content)
    with pytest.raises(DatasetError, match="list.txt: "):
        list_images([str(listing)])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
def test_a_list_file_of_another_system(tmp_path, encoding):
    names = ["4.42.48\u202fPM.jpg", "line\u2028break.jpg", "b c.jpg"]
    for name in names:
        (tmp_path / name).touch()
    text = "".join(f"{name}\r\n" for name in names)
    mark = b"\xfe\xff" if encoding == "utf-16-be" else b""
    listing = tmp_path / "list.txt"
    listing.write_bytes(mark + text.encode(encoding))
    assert list_images([str(listing)]) == [tmp_path / name for name in names]


def test_a_list_of_queries_with_cameras(tmp_path):
    (tmp_path / "q 1.jpg").touch()
    listing = tmp_path / "queries.txt"
    listing.write_text("q 1.jpg SIMPLE_RADIAL 1600 1200 1.5e3 800 600 -0.1\nq\n")
    assert list_images([str(listing)]) == [tmp_path / "q 1.jpg", tmp_path / "q"]


def test_a_name_that_is_not_utf_8_does_not_stop_the_others(tmp_path):
    latin, other = tmp_path / "caf\udce9.jpg", tmp_path / "b.jpg"
    try:
        latin.touch()
    except OSError:
        pytest.skip("this file system holds UTF-8 names only")
    other.touch()
    listing = tmp_path / "list.txt"
    listing.write_bytes(b"caf\xe9.jpg\nb.jpg\n")
    assert list_images([str(listing)]) == [latin, other]
    assert list_images([str(tmp_path)]) == [other, latin]
