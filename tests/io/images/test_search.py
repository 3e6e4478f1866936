"""Which files the arguments of a command line name, and what is said of the others."""

import os
from pathlib import Path
from unicodedata import normalize

import pytest
from PIL import Image

from r2d2_kapture.errors import DatasetError
from r2d2_kapture.io.images import formats as image_formats
from r2d2_kapture.io.images.search import find_images, leave_out_names


def found(patterns, **options):
    return list(find_images(patterns, **options).paths)


def made(folder, *names):
    """Empty files, which are images by their names."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def names_and_warnings(folder, **options):
    images = find_images([str(folder)], **options)
    names = [path.relative_to(folder).as_posix() for path in images.paths]
    return names, list(images.warnings)


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A folder with images and others, the current folder being its parent."""
    for name in (
        "b.png",
        "a.JPG",
        "sub dir/é, 1.tiff",
        "sub dir/deep/z.ppm",
        "sub dir/notes.txt",
        ".hidden.png",
        "none/readme.md",
    ):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)
    return Path("photos")


def test_a_folder_gives_its_images_recursively_and_sorted(tree):
    assert found(["photos"]) == [
        tree / "a.JPG",
        tree / "b.png",
        tree / "sub dir/deep/z.ppm",
        tree / "sub dir/é, 1.tiff",
    ]


def test_glob_patterns(tree):
    assert found(["photos/*"]) == [tree / "a.JPG", tree / "b.png"]
    assert found(["photos/**/*.tiff"]) == [tree / "sub dir/é, 1.tiff"]
    assert found(["photos/**/*.pp[mn]"]) == [tree / "sub dir/deep/z.ppm"]
    assert found([str(tree.resolve() / "?.png")]) == [tree.resolve() / "b.png"]


def test_the_order_is_as_given_and_a_file_comes_once(tree):
    absolute = str((tree / "b.png").resolve())
    (tree.parent / "link.png").symlink_to(absolute)
    patterns = ["photos/b.png", "photos/a.JPG", "photos/*.[pJ]*", absolute, "link.png"]
    assert found(patterns) == [tree / "b.png", tree / "a.JPG", Path("link.png")]


def test_a_plain_path_is_kept_even_if_missing(tree):
    patterns = ["photos/missing.jpg", "photos/b.png", "photos/c.dng"]
    assert found(patterns) == [Path(pattern) for pattern in patterns]


@pytest.mark.parametrize("missing", ["phots", "phots/", "photos/é 2024.07", "/none"])
def test_a_folder_that_is_missing_is_named(tree, missing):
    with pytest.raises(DatasetError) as raised:
        found(["photos/b.png", missing])
    named = missing.rstrip("/")
    assert str(raised.value).startswith(f"{named}: found no such file or folder, exp")


def test_a_name_that_exists_is_no_pattern(tree):
    literal = tree / "set [1]" / "a*.png"
    literal.parent.mkdir()
    literal.touch()
    (tree / "set 1").mkdir()
    (tree / "set 1" / "a*.png").touch()
    assert found([str(literal)]) == [literal]
    assert found([str(literal.parent)]) == [literal]
    assert found([str(literal.parent / "*.png")]) == [literal]


@pytest.mark.parametrize(
    "pattern", ["photos/none", "photos/*.webp", "nowhere/*.png", "photos/none/*"]
)
def test_a_folder_or_pattern_without_images_is_named(tree, pattern):
    with pytest.raises(DatasetError) as raised:
        found(["photos/b.png", pattern])
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
    assert found([str(listing)]) == [
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
        found([str(listing)])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
def test_a_list_file_of_another_system(tmp_path, encoding):
    names = ["4.42.48\u202fPM.jpg", "line\u2028break.jpg", "b c.jpg"]
    for name in names:
        (tmp_path / name).touch()
    text = "".join(f"{name}\r\n" for name in names)
    mark = b"\xfe\xff" if encoding == "utf-16-be" else b""
    listing = tmp_path / "list.txt"
    listing.write_bytes(mark + text.encode(encoding))
    assert found([str(listing)]) == [tmp_path / name for name in names]


def test_a_list_of_queries_with_cameras(tmp_path):
    (tmp_path / "q 1.jpg").touch()
    listing = tmp_path / "queries.txt"
    listing.write_text("q 1.jpg SIMPLE_RADIAL 1600 1200 1.5e3 800 600 -0.1\nq\n")
    assert found([str(listing)]) == [tmp_path / "q 1.jpg", tmp_path / "q"]


def test_a_name_that_is_not_utf_8_does_not_stop_the_others(tmp_path):
    latin, other = tmp_path / "caf\udce9.jpg", tmp_path / "b.jpg"
    try:
        latin.touch()
    except OSError:
        pytest.skip("this file system holds UTF-8 names only")
    other.touch()
    listing = tmp_path / "list.txt"
    listing.write_bytes(b"caf\xe9.jpg\nb.jpg\n")
    assert found([str(listing)]) == [latin, other]
    assert found([str(tmp_path)]) == [other, latin]


def test_every_ending_that_pillow_reads_is_an_image(tmp_path):
    names = "a.JPG b.jpe c.jfif d.mpo e.avif f.dib g.pnm h.pbm i.j2k".split()
    assert names_and_warnings(made(tmp_path, *names)) == (names, [])


@pytest.mark.parametrize("names", [["a.heic", "b.HEIF", "c.hif"]])
def test_heif_is_an_image_where_pillow_heif_is_installed(tmp_path, monkeypatch, names):
    folder = made(tmp_path, "0.jpg", *names)
    monkeypatch.setattr(image_formats, "find_spec", lambda name: object())
    assert names_and_warnings(folder) == (["0.jpg", *names], [])
    monkeypatch.setattr(image_formats, "find_spec", lambda name: None)
    assert names_and_warnings(folder) == (
        ["0.jpg"],
        [
            "3 left out, HEIF pictures, which pip install pillow-heif makes readable: "
            "'a.heic', 'b.HEIF', 'c.hif'"
        ],
    )


def test_avif_is_left_out_where_pillow_lacks_it(tmp_path, monkeypatch):
    folder = made(tmp_path, "0.jpg", "a.avif")
    monkeypatch.setattr(image_formats.features, "check", lambda name: False)
    image_formats.reads_avif.cache_clear()
    try:
        names, warnings = names_and_warnings(folder)
    finally:
        image_formats.reads_avif.cache_clear()
    assert names == ["0.jpg"]
    assert warnings[0].startswith("1 left out, AVIF pictures, which pip install -U")


def test_what_plainly_is_a_picture_is_counted_and_named(tmp_path):
    raw = ["1.DNG", "sub/2.cr2", "3.Cr3", "4.NEF", "5.arw"]
    made(tmp_path, "0.jpg", "clip.MOV", "scan.psd", "a.txt", "b.json", "c.xmp", *raw)
    Image.new("RGB", (4, 4)).save(tmp_path / "no ending", format="PNG")
    Image.new("RGB", (4, 4)).save(tmp_path / "6.jpg_large", format="JPEG")
    names, warnings = names_and_warnings(tmp_path)
    assert names == ["0.jpg"]
    assert sorted(warnings) == [
        "1 left out, images of an unsupported format: 'scan.psd'",
        "1 left out, videos: 'clip.MOV'",
        "2 left out, image files whose names have no image suffix: '6.jpg_large', "
        "'no ending'",
        "5 left out, raw camera files, which are not supported: '1.DNG', '3.Cr3', "
        "'4.NEF' and 2 more",
    ]


def test_a_folder_of_raw_files_alone_is_reported(tmp_path):
    with pytest.raises(
        DatasetError, match="found no image.*1 left out, raw camera files"
    ):
        found([str(made(tmp_path, "a.dng"))])


def test_glob_patterns_say_what_they_leave_out_too(tmp_path):
    folder = made(tmp_path, "a.jpg", "b.dng", "sub/c.dng")
    images = find_images([str(folder / "*")])
    assert images.paths == (folder / "a.jpg",)
    assert images.warnings[0].endswith(": 'b.dng'")


def test_every_name_is_an_image_links_too(tmp_path):
    made(tmp_path, "real/0.jpg", "photos/0.jpg")
    folder = tmp_path / "photos"
    for name in ("1.jpg", "2.jpg"):
        (folder / name).symlink_to("../real/0.jpg")
    os.link(tmp_path / "real/0.jpg", folder / "3.jpg")
    (folder / "outside").symlink_to("../real")
    names = ["0.jpg", "1.jpg", "2.jpg", "3.jpg", "outside/0.jpg"]
    assert names_and_warnings(folder) == (names, [])


def test_a_path_counts_once_however_it_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(made(tmp_path, "a/0.jpg", "b/1.jpg"))
    typed = ["a/0.jpg", "./a/0.jpg", "b/../a/0.jpg", str(tmp_path / "a/0.jpg"), "a"]
    assert found(typed) == [Path("a/0.jpg")]


def test_links_that_lead_nowhere_or_back_are_named(tmp_path):
    folder = made(tmp_path, "photos/a/0.jpg", "photos/b/1.jpg") / "photos"
    (folder / "gone.jpg").symlink_to("nothing.jpg")
    (folder / "gone.txt").symlink_to("nothing.txt")
    (folder / "a" / "loop").symlink_to("..")
    (folder / "a" / "above").symlink_to("../..")
    (folder / "latest").symlink_to("b")
    names, warnings = names_and_warnings(folder)
    assert names == ["a/0.jpg", "b/1.jpg"]
    assert sorted(warnings) == [
        "1 left out, links to no file: 'gone.jpg'",
        "3 left out, links to folders that are searched under another name: 'a/above', "
        "'a/loop', 'latest'",
    ]
    assert found([str(folder / "**/*.jpg")]) == [folder / name for name in names]


@pytest.mark.parametrize(
    ("pattern", "kept"),
    [
        ("masks", ["a.jpg", "depth/x.png", "depth/y/z.PNG"]),
        ("masks/", ["a.jpg", "depth/x.png", "depth/y/z.PNG"]),
        ("./masks/*", ["a.jpg", "depth/x.png", "depth/y/z.PNG"]),
        ("*.png", ["a.jpg"]),
        ("*.PNG", ["a.jpg"]),
        ("depth/*.png", ["a.jpg", "depth/y/z.PNG", "masks/m.png"]),
        ("depth/**/*.png", ["a.jpg", "masks/m.png"]),
        ("**/[xz].png", ["a.jpg", "masks/m.png"]),
        ("y", ["a.jpg", "depth/x.png", "masks/m.png"]),
    ],
)
def test_exclude(tmp_path, pattern, kept):
    made(tmp_path, "a.jpg", "masks/m.png", "depth/x.png", "depth/y/z.PNG")
    names, warnings = names_and_warnings(tmp_path, exclude=[pattern])
    assert names == kept
    assert warnings[0].startswith(f"{4 - len(kept)} left out by --exclude {pattern}: '")


def test_exclude_takes_any_unicode_form_of_an_accent(tmp_path) -> None:
    composed, decomposed = (normalize(form, "été") for form in ("NFC", "NFD"))
    made(tmp_path, "a.jpg", f"{composed}/b.jpg", f"{decomposed}/c.jpg")
    for pattern in (composed, decomposed):
        assert names_and_warnings(tmp_path, exclude=[pattern])[0] == ["a.jpg"]


def test_exclude_that_matches_nothing_is_reported(tmp_path):
    names, warnings = names_and_warnings(made(tmp_path, "a.jpg"), exclude=["MASKS"])
    assert names == ["a.jpg"]
    assert warnings[0].startswith("--exclude MASKS: matches nothing")


def test_exclude_holds_for_single_files_lists_and_names(tmp_path, monkeypatch):
    monkeypatch.chdir(made(tmp_path, "a.jpg", "masks/a.png", "list.txt"))
    Path("list.txt").write_text("a.jpg\nmasks/a.png")
    for patterns in (["a.jpg", "masks/a.png"], ["list.txt"]):
        assert found(patterns, exclude=["masks"]) == [Path("a.jpg")]
    names, warnings = leave_out_names(["a.jpg", "masks/a.png"], ["masks"])
    assert names == ["a.jpg"]
    assert warnings == ("1 left out by --exclude masks: 'masks/a.png'",)


def test_masks_are_no_images(tmp_path):
    made(tmp_path, "a.jpg", "a.jpg.png", "b.png", "masks/a.png", "c.jpg.png")
    names, warnings = names_and_warnings(tmp_path, masks=tmp_path / "masks")
    assert names == ["a.jpg", "b.png", "c.jpg.png"]
    assert sorted(warnings) == [
        "1 left out, in the folder of --masks: 'masks/a.png'",
        "1 left out, masks by their names, those of images and .png: 'a.jpg.png'",
    ]
    # a folder around that of the images, or the same, holds images too
    for folder in (tmp_path, tmp_path.parent):
        assert "b.png" in names_and_warnings(tmp_path, masks=folder)[0]


def test_folders_named_like_masks_are_pointed_at(tmp_path):
    made(tmp_path, "a.jpg", "s1/Depth/a.png", "s1/Depth/b.png", "masks/x/a.png")
    names, warnings = names_and_warnings(tmp_path)
    assert len(names) == 4
    assert [text.partition(",")[0] for text in warnings] == [
        f"1 images lie in {tmp_path}/masks",
        f"2 images lie in {tmp_path}/s1/Depth",
    ]
