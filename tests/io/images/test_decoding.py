"""Images of every kind in, RGB as stored or one line of ImageError out."""

import io
import random
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from r2d2_kapture.errors import ImageError
from r2d2_kapture.io.images import decoding as images
from r2d2_kapture.io.images import formats as image_formats
from r2d2_kapture.io.images.decoding import image_size, read_mask, read_rgb

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


def test_grey_of_other_byte_orders_and_ranges(tmp_path):
    grey = np.array([[0, 257, 65535]], dtype=np.uint16)
    image = Image.frombytes("I;16B", (3, 1), grey.astype(">u2").tobytes())
    image.save(tmp_path / "a.tif")
    np.testing.assert_array_equal(read_rgb(tmp_path / "a.tif")[0, :, 0], [0, 1, 255])
    (tmp_path / "a.pgm").write_bytes(b"P2 3 1 1000 0 500 1000")
    np.testing.assert_array_equal(read_rgb(tmp_path / "a.pgm")[0, :, 0], [0, 128, 255])


@pytest.mark.parametrize(
    ("grey", "words"),
    [
        (np.int32(-1), "from -1 to -1, expected 0 to"),
        (np.int32(65536), "from 65536 to 65536, expected 0 to"),
        (np.float32(0.5), "floating point"),
    ],
)
def test_grey_beyond_16_bits_or_of_floating_point_is_refused(tmp_path, grey, words):
    path = saved(tmp_path / "a.tif", np.full((2, 2), grey))
    with pytest.raises(ImageError, match=words):
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


def saved_heif(path, array, **options):
    heif = pytest.importorskip("pillow_heif")
    heif.from_pillow(Image.fromarray(array)).save(path, quality=-1, **options)
    return path


def halves(size=(64, 64)):
    """Red above, blue below, of a size that codecs like."""
    array = np.zeros((size[1], size[0], 3), np.uint8)
    array[: size[1] // 2, :, 0], array[size[1] // 2 :, :, 2] = 255, 255
    return array


def assert_alike(rgb, expected):
    """Equal but for what a codec does where colours meet."""
    assert rgb.shape == expected.shape
    assert np.abs(rgb.astype(float) - expected).mean() < 8


def test_jfif_and_the_first_picture_of_an_mpo_are_read(tmp_path):
    saved(tmp_path / "a.jfif", halves(), format="JPEG")
    first, second = Image.fromarray(halves()), Image.new("RGB", (64, 64), "green")
    first.save(tmp_path / "a.mpo", format="MPO", save_all=True, append_images=[second])
    for name in ("a.jfif", "a.mpo"):
        assert_alike(read_rgb(tmp_path / name), halves())
        assert image_size(tmp_path / name) == (64, 64)


@pytest.mark.skipif(not image_formats.reads_avif(), reason="this Pillow has no AVIF")
@pytest.mark.parametrize("orientation", range(1, 9))
def test_avif_is_read_as_stored(tmp_path, orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = saved(tmp_path / "a.avif", halves((64, 48)), exif=exif, quality=95)
    assert_alike(read_rgb(path), halves((64, 48)))
    assert image_size(path) == (64, 48)


@pytest.mark.parametrize("suffix", ["heic", "jpg"])
def test_heif_is_read_by_its_content(tmp_path, suffix):
    path = saved_heif(tmp_path / "a.heic", halves((64, 48)))
    path = path.rename(tmp_path / f"photo.{suffix}")
    assert_alike(read_rgb(path), halves((64, 48)))
    assert image_size(path) == (64, 48)
    assert "HEIF" not in Image.OPEN


def test_heif_is_turned_by_its_container_and_not_by_its_tag(tmp_path):
    """``irot`` belongs to decoding, in every program; the tag repeats it."""
    pytest.importorskip("pillow_heif")
    code = (
        "import sys, pillow_heif; from PIL import Image\n"
        "pillow_heif.register_heif_opener(); e = Image.Exif(); e[274] = 6\n"
        "image = Image.open(sys.argv[1])\n"
        "image.save(sys.argv[2], format='HEIF', exif=e.tobytes(), quality=-1)"
    )
    stored, path = saved(tmp_path / "a.png", halves((64, 48))), tmp_path / "a.heic"
    subprocess.run([sys.executable, "-c", code, str(stored), str(path)], check=True)
    upright = np.rot90(halves((64, 48)), -1)
    assert_alike(read_rgb(path), upright)
    assert image_size(path) == (48, 64)


@pytest.mark.parametrize("read", [read_rgb, image_size])
def test_heif_without_pillow_heif_says_what_to_install(tmp_path, monkeypatch, read):
    (tmp_path / "a.jpg").write_bytes(b"\0\0\0\x1cftypheic" + bytes(99))
    monkeypatch.setattr(image_formats, "find_spec", lambda name: None)
    with pytest.raises(ImageError, match="a HEIF picture.*pip install pillow-heif"):
        read(tmp_path / "a.jpg")


@pytest.mark.parametrize("brand", [b"heic", b"avif"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_truncated_heif_and_avif_are_errors(tmp_path, brand, share):
    path = tmp_path / "a.img"
    if brand == b"heic":
        saved_heif(path.with_suffix(".heic"), noise(64, 64)).rename(path)
    elif image_formats.reads_avif():
        path.write_bytes(encoded("AVIF"))
    else:
        pytest.skip("this Pillow has no AVIF")
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ImageError, match="a.img: found"):
        read_rgb(path)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P", "1"])
def test_black_is_masked_and_nothing_else(tmp_path, mode):
    grey = np.array([[0, 1, 255], [0, 0, 128]], np.uint8)
    if mode == "1":
        grey[grey > 0] = 255
    image = Image.fromarray(grey).convert(mode)
    if mode in ("RGBA", "LA"):
        image.putalpha(0)
    image.save(tmp_path / "a.png")
    mask = read_mask(tmp_path / "a.png")
    assert mask.dtype == np.bool_
    np.testing.assert_array_equal(mask, grey > 0)


def test_labels_of_16_bits_are_not_rounded_to_black(tmp_path):
    path = saved(tmp_path / "a.png", np.array([[0, 1, 65535]], np.uint16))
    np.testing.assert_array_equal(read_mask(path), [[False, True, True]])
