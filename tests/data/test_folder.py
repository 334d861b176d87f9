import io
import os
import shutil
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from dualprop import data
from dualprop.data._images import _bits_of_avif, extensions
from dualprop.errors import DataError, DualpropError
from tests.slow import but_slow


def save(path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def colour(seed: int, height: int = 4, width: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def tree(tmp_path):
    """Return a tree of 2 × 2 training images and 2 test images, 4 pixels high and 5 wide."""
    for number, name in enumerate(
        ["train/cat/a", "train/cat/b", "train/dog/a", "train/dog/b", "test/cat/a", "test/dog/a"]
    ):
        save(tmp_path / f"{name}.png", colour(number))
    return tmp_path


def load(tree, **options) -> data.Dataset:
    return data.load(f"folder:{tree}", **options)


def test_a_tree_of_images_is_read(tree):
    dataset = load(tree)
    assert dataset.name == f"folder:{tree}"
    assert dataset.classes == ("cat", "dog")
    assert dataset.in_shape == (3, 4, 5)
    assert dataset.train.labels.tolist() == [0, 0, 1, 1]
    assert dataset.test.labels.tolist() == [0, 1]
    for number in range(4):
        assert np.array_equal(dataset.train.images[number].permute(1, 2, 0).numpy(), colour(number))
    pixels = np.stack([colour(number) for number in range(4)]) / 255
    np.testing.assert_allclose(dataset.mean, pixels.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(dataset.std, pixels.std((0, 1, 2)), rtol=1e-12)


def test_grey_images_have_one_channel(tmp_path):
    grey = {part: colour(seed)[:, :, 0] for seed, part in enumerate(["train", "test"])}
    for part, pixels in grey.items():
        save(tmp_path / part / "x" / "a.png", pixels)
    dataset = load(tmp_path)
    assert dataset.in_shape == (1, 4, 5)
    assert np.array_equal(dataset.test.images[0, 0].numpy(), grey["test"])


def test_one_colour_image_makes_all_of_them_colour(tree):
    grey = colour(9)[:, :, 0]
    save(tree / "train" / "cat" / "a.png", grey)
    dataset = load(tree)
    assert dataset.in_shape == (3, 4, 5)
    assert all(np.array_equal(channel.numpy(), grey) for channel in dataset.train.images[0])


def test_the_image_size_resizes_the_shorter_side_and_cuts_the_centre(tmp_path):
    """An image of three flat thirds, twice as high as it is made: only its middle stays."""
    thirds = np.zeros((24, 8, 3), dtype=np.uint8)
    thirds[8:16] = 200
    for part in ("train", "test"):
        save(tmp_path / part / "x" / "a.png", thirds)
    save(tmp_path / "train" / "x" / "b.png", colour(1, 30, 20))
    dataset = load(tmp_path, image_size=8)
    assert dataset.in_shape == (3, 8, 8)
    assert (dataset.train.images[0] == 200).all()
    half = load(tmp_path, image_size=4).train.images[0]
    assert half.shape == (3, 4, 4)
    assert (half[:, 1:3] == 200).all()


def test_different_sizes_are_named_with_the_remedy(tree):
    save(tree / "test" / "dog" / "a.png", colour(0, 6, 7))
    with pytest.raises(DataError, match="image_size") as error:
        load(tree)
    message = str(error.value)
    assert str(tree / "test" / "dog" / "a.png") in message
    assert "7×6" in message
    assert "5×4" in message


@pytest.mark.parametrize("content", [b"", b"no image", None], ids=["empty", "text", "cut"])
def test_a_damaged_image_is_named(tree, content):
    path = tree / "train" / "dog" / "b.png"
    path.write_bytes(path.read_bytes()[:-40] if content is None else content)
    with pytest.raises(DataError, match=r"dog.b\.png: no image that can be read") as error:
        load(tree)
    assert "\n" not in str(error.value)


def test_deep_images_are_refused_rather_than_clipped(tree):
    save(tree / "train" / "dog" / "b.png", np.full((4, 5), 40_000, dtype=np.uint16))
    with pytest.raises(DataError, match=r"b\.png: must have 8 bits per channel"):
        load(tree)


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_missing_part_is_named(tree, part):
    (tree / part).rename(tree / "elsewhere")
    with pytest.raises(DataError, match=f"{part}: no such folder; a folder data set is PATH/train/CLASS"):
        load(tree)


def test_a_part_without_classes_is_named(tree, tmp_path):
    (tree / "test").rename(tree / "elsewhere")
    (tree / "test").mkdir()
    with pytest.raises(DataError, match=r"test: has no folder of a class, PATH/test/CLASS"):
        load(tree)


def test_an_empty_class_is_named(tree):
    (tree / "train" / "cow").mkdir()
    (tree / "train" / "cow" / "notes.txt").write_text("none yet")
    with pytest.raises(
        DataError,
        match=r"train: has no image of the class cow; left out: 1 of no format that is read",
    ):
        load(tree)


def test_train_and_test_must_have_the_same_classes(tree):
    save(tree / "test" / "cow" / "a.png", colour(0))
    with pytest.raises(DataError, match="same classes; in one only: cow"):
        load(tree)


def test_the_image_size_must_be_positive(tree):
    with pytest.raises(DualpropError, match="image_size=0: must be a whole number of at least 1"):
        load(tree, image_size=0)


def glyph(seed: int) -> np.ndarray:
    """Black on nothing: all that tells the picture is its transparency."""
    alpha = np.random.default_rng(seed).integers(0, 256, (4, 5), dtype=np.uint8)
    return np.stack([np.zeros_like(alpha)] * 3 + [alpha], axis=-1)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "P", "RGB", "L"])
def test_what_is_transparent_is_laid_on_white(tmp_path, mode, caplog):
    for part, seed in (("train", 0), ("test", 1)):
        path = tmp_path / part / "x" / ("a.tif" if mode == "PA" else "a.png")
        path.parent.mkdir(parents=True)
        image = Image.fromarray(glyph(seed))
        if mode == "P":
            image.quantize(16).save(path, transparency=bytes(range(0, 256, 16)))
        elif mode in ("RGB", "L"):
            opaque = Image.fromarray(glyph(seed)[:, :, 3]).convert(mode)
            opaque.putpixel((0, 0), 7 if mode == "L" else (7, 7, 7))
            opaque.save(path, transparency=7 if mode == "L" else (7, 7, 7))
        elif mode == "PA":
            Image.fromarray(glyph(seed)).convert("LA").save(path)
        else:
            image.convert(mode).save(path)
    images = load(tmp_path).train.images.float()
    with Image.open(tmp_path / "train" / "x" / path.name) as opened:
        pixels = np.asarray(opened.convert("RGBA"), dtype=float)
    alpha = pixels[:, :, 3] / 255
    assert alpha.min() < 1
    expected = alpha * pixels[:, :, 0] + (1 - alpha) * 255
    np.testing.assert_allclose(images[0, 0].numpy(), expected, atol=1)
    assert images.std() > 10
    assert f"{tmp_path}: 2 images are transparent; laid on the grey level 255 (background)" in caplog.messages


def test_another_background(tmp_path):
    for part in ("train", "test"):
        save(tmp_path / part / "x" / "a.png", 255 - glyph(2) * np.uint8([1, 1, 1, 0]))
    white_on_nothing = glyph(2) | np.uint8([255, 255, 255, 0])
    for part in ("train", "test"):
        save(tmp_path / part / "x" / "a.png", white_on_nothing)
    with pytest.raises(DataError, match=r"a\.png: nothing is left of it on a background=255; choose another grey"):
        load(tmp_path)
    images = load(tmp_path, background=0).train.images
    np.testing.assert_allclose(images[0, 0].numpy(), white_on_nothing[:, :, 3], atol=1)
    with pytest.raises(DualpropError, match="background=256: must be a whole number in"):
        load(tmp_path, background=256)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("end", ["jpg", "png", "tif", "webp"])
def test_images_are_turned_upright(tmp_path, orientation, end):
    """What a camera stores lies as EXIF says; the columns and rows that it means are written out here."""
    upright = np.zeros((16, 24), np.uint8)
    upright[:8, :8] = 255  # bright at the top left
    upright[:8, 8:16] = 128
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: upright.T[::-1],
        7: upright.T[::-1, ::-1],
        8: upright.T[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    for part in ("train", "test"):
        path = tmp_path / part / "x" / f"a.{end}"
        path.parent.mkdir(parents=True)
        Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif)
    image = load(tmp_path).train.images[0, 0]
    assert image.shape == (16, 24)
    np.testing.assert_allclose(image.numpy(), upright, atol=30)


def encodings() -> dict[str, str]:
    """The ends of names that Pillow reads and writes, but for those that another program has to read."""
    read_elsewhere = {"EPS", "WMF", "PDF", "BUFR", "GRIB", "HDF5", "PALM"}
    ends = Image.registered_extensions().items()
    return {end: name for end, name in ends if name in set(Image.SAVE) - read_elsewhere}


@pytest.mark.filterwarnings("ignore:IM image format:DeprecationWarning")
@pytest.mark.parametrize("end", but_slow(sorted(encodings()), ".icns"))
def test_every_extension_that_pillow_reads_is_read(tmp_path, end):
    name = encodings()[end]
    assert extensions()[end] in (name, "JPEG")
    for part in ("train", "test"):
        path = tmp_path / part / "x" / f"a{end.upper()}"
        path.parent.mkdir(parents=True)
        image = Image.fromarray(colour(0, 32, 32))
        for mode in ("RGB", "P", "1"):
            try:
                image.convert(mode).save(path, name)
                break
            except (OSError, ValueError):  # a format of other modes
                path.unlink(missing_ok=True)
    assert load(tmp_path, image_size=32).in_shape[1:] == (32, 32)


def test_what_is_left_out_is_counted_and_the_first_is_named(tree, caplog):
    (tree / "train" / "cat" / ".ipynb_checkpoints").mkdir()
    save(tree / "train" / "cat" / ".ipynb_checkpoints" / "a-checkpoint.png", colour(0))
    save(tree / "train" / ".ipynb_checkpoints" / "a-checkpoint.png", colour(0))
    save(tree / "train" / "__MACOSX" / "cat" / "a.png", colour(0))
    (tree / "train" / "cat" / "._a.png").write_bytes(b"of another system")
    (tree / "train" / "cat" / "names.txt").write_text("a\nb\n")
    save(tree / "train" / "contact sheet.png", colour(0))
    save(tree / "train" / "dog" / "puppies" / "c.png", colour(0))
    dataset = load(tree)
    assert dataset.classes == ("cat", "dog")
    assert dataset.train.labels.tolist() == [0, 0, 1, 1, 1]
    (line,) = caplog.messages
    assert line.startswith(f"{tree}: left out: 4 hidden or a system's own (the first: train/")
    assert "1 of no format that is read (the first: train/cat/names.txt)" in line
    assert "1 outside the folder of a class (the first: train/contact sheet.png)" in line


def test_links_neither_loop_nor_lead_out_nor_double(tree, tmp_path_factory, caplog):
    outside = tmp_path_factory.mktemp("outside")
    save(outside / "secret.png", colour(0))
    (tree / "train" / "cat" / "loop").symlink_to(tree)
    (tree / "train" / "cat" / "again").symlink_to(tree / "train" / "dog", target_is_directory=True)
    (tree / "train" / "cow").symlink_to(tree / "train" / "dog", target_is_directory=True)
    (tree / "train" / "cat" / "out.png").symlink_to(outside / "secret.png")
    (tree / "train" / "cat" / "nowhere.png").symlink_to(tree / "nothing.png")
    (tree / "train" / "cat" / "c.png").symlink_to(tree / "train" / "cat" / "a.png")
    dataset = load(tree)
    assert dataset.classes == ("cat", "dog")
    assert dataset.train.labels.tolist() == [0, 0, 0, 1, 1]
    assert "5 links to folders, out of it, or to nothing" in caplog.text


def test_the_folder_itself_may_be_a_link(tree, tmp_path_factory):
    link = tmp_path_factory.mktemp("links") / "link"
    link.symlink_to(tree)
    assert len(load(link).train) == 4


def test_a_part_that_leads_elsewhere_is_refused(tree, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    (tree / "train").rename(outside / "train")
    (tree / "train").symlink_to(outside / "train")
    with pytest.raises(DataError, match="train: is a link that leads out of"):
        load(tree)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="has no pipes")
def test_pipes_are_left_out(tree, caplog):
    os.mkfifo(tree / "train" / "cat" / "c.png")
    assert len(load(tree).train) == 4
    assert "1 no regular files (the first: train/cat/c.png)" in caplog.text


def png16(channels: int) -> bytes:
    """Two rows of three pixels of 16 bits, written out: Pillow writes none."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    rows = b"".join(b"\0" + bytes(range(6 * channels)) for _ in range(2))
    kind = {2: 4, 3: 2, 4: 6}[channels]
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 3, 2, 16, kind, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff16() -> bytes:
    """Two rows of three pixels of 16 bits and three colours."""
    entries = [(256, 3), (257, 2), (258, 122), (259, 1), (262, 2), (273, 128), (277, 3), (278, 2), (279, 36)]
    counts = {258: 3}
    ifd = b"".join(struct.pack("<HHIHH", tag, 3, counts.get(tag, 1), value, 0) for tag, value in entries)
    head = b"II*\0" + struct.pack("<IH", 8, len(entries)) + ifd + struct.pack("<I", 0)
    return head + struct.pack("<3H", 16, 16, 16) + bytes(36)


def jpeg2000() -> bytes:
    """A depth of 12 bits in the marker SIZ of a sound file of 8."""
    written = io.BytesIO()
    Image.fromarray(colour(0, 32, 32)).save(written, "JPEG2000", no_jp2=True)
    content = bytearray(written.getvalue())
    at = content.find(b"\xff\x4f\xff\x51") + 42
    assert content[at] == content[at + 3] == 7
    content[at + 3] = 11
    return bytes(content)


DEEP = {
    "grey and alpha.png": png16(2),
    "colour.png": png16(3),
    "colour and alpha.png": png16(4),
    "plain.ppm": b"P3 1 1 65535\n1 2 3",
    "binary.ppm": b"P6 3 2 1023\n" + bytes(36),
    "colour.tif": tiff16(),
    "verbatim.sgi": struct.pack(">HBBHHHH", 474, 0, 2, 3, 3, 2, 3).ljust(512, b"\0") + bytes(36),
    "coded.sgi": struct.pack(">HBBHHHH", 474, 1, 2, 3, 3, 2, 3).ljust(512, b"\0") + bytes(100),
    "colour.j2k": jpeg2000(),
}


@pytest.mark.parametrize("name", DEEP)
def test_deep_colours_are_refused_rather_than_cut(tree, name):
    (tree / "train" / "dog" / name).write_bytes(DEEP[name])
    with pytest.raises(DataError, match=f"{name}: must have 8 bits per channel"):
        load(tree)


@pytest.mark.parametrize(
    ("flags", "bits"), [(0b0000_0000, 8), (0b0000_1100, 8), (0b0100_0000, 10), (0b0110_0000, 10)]
)
def test_the_depth_of_avif_is_a_flag_of_its_box(flags, bits):
    """high_bitdepth is the second bit of the third byte; Pillow writes 8 bits alone."""
    written = io.BytesIO()
    Image.fromarray(colour(0, 32, 32)).save(written, "AVIF")
    content = bytearray(written.getvalue())
    assert _bits_of_avif(content) == 8
    content[content.find(b"av1C") + 6] = flags
    assert (_bits_of_avif(content) > 8) == (bits > 8)


def test_shallow_colours_are_read(tree, tmp_path_factory):
    """16 bits for a whole pixel are fewer than 8 for each of its colours."""
    bmp = (
        b"BM"
        + struct.pack("<IHHI", 70, 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, 5, 4, 1, 16, 0, 48, 0, 0, 0, 0)
    )
    (tree / "train" / "dog" / "c.bmp").write_bytes(bmp + bytes(48))
    assert len(load(tree).train) == 5


def test_several_pictures_in_a_file_are_told(tree, caplog):
    first, second = (Image.fromarray(colour(seed)) for seed in (7, 8))
    first.save(tree / "train" / "dog" / "c.tif", save_all=True, append_images=[second])
    images = load(tree).train.images
    assert np.array_equal(images[4].permute(1, 2, 0).numpy(), colour(7))
    assert f"{tree}: 1 files hold several images, the first of which is read" in caplog.messages


@pytest.mark.parametrize("name", ["z.png", "z.jpg", "z.tga"])
def test_postscript_by_another_name_starts_no_program(tree, name, monkeypatch):
    (tree / "train" / "dog" / name).write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 5 4\nshowpage\n")
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_, **__: pytest.fail("Ghostscript was asked"))
    with pytest.raises(
        DataError, match=f"{name}: no image that can be read: its content is of no format that is op"
    ):
        load(tree)


def test_postscript_is_left_out(tree, caplog):
    (tree / "train" / "dog" / "z.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 5 4\n")
    assert len(load(tree).train) == 4
    assert "1 of no format that is read (the first: train/dog/z.eps)" in caplog.text


def test_what_does_not_fit_is_refused_before_it_is_decoded(tree, monkeypatch):
    monkeypatch.setattr("dualprop.data._memory.available", lambda: 599)
    monkeypatch.setattr("dualprop.data.folder.decoded", lambda *_: pytest.fail("was decoded"))
    with pytest.raises(DataError, match=r"6 images of 3×4×5: need 0\.00 GiB of memory, and 0\.00 GiB are free"):
        load(tree)


@pytest.mark.parametrize("size", [100_000, 2**62])
def test_an_image_size_beyond_the_memory_is_refused(tree, size):
    with pytest.raises(DataError, match=f"6 images of 3×{size}×{size}: need .* choose a smaller image_size"):
        load(tree, image_size=size)


def test_a_long_strip_is_refused_if_its_shorter_side_cannot_be_made_so_long(tree):
    for name in ("a", "b"):
        save(tree / "train" / "cat" / f"{name}.png", np.zeros((1, 60_000, 3), np.uint8))
    with pytest.raises(DataError, match="choose a smaller image_size"):
        load(tree, image_size=4000)


def test_more_pixels_than_pillow_warns_of_are_refused(tree, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 19)
    with pytest.raises(
        DataError, match=r"a\.png: no image that can be read: Image size \(20 pixels\) exceeds limit"
    ):
        load(tree)


def test_the_fingerprint_is_of_names_and_contents_wherever_they_are(tree, tmp_path_factory):
    first = load(tree).fingerprint
    copy = tmp_path_factory.mktemp("elsewhere") / "copy"
    shutil.copytree(tree, copy)
    assert load(copy).fingerprint == first
    (copy / "train" / "dog").rename(copy / "train" / "cow")
    (copy / "test" / "dog").rename(copy / "test" / "cow")
    renamed = load(copy).fingerprint
    save(tree / "train" / "dog" / "b.png", colour(99))
    changed = load(tree).fingerprint
    save(tree / "train" / "dog" / "c.png", colour(1))
    assert len({first, renamed, changed, load(tree).fingerprint}) == 4


def test_a_relative_path_is_kept_as_an_absolute_one(tree, monkeypatch):
    monkeypatch.chdir(tree.parent)
    assert data.load(f"folder:{tree.name}").name == f"folder:{tree}"


def test_names_with_escape_sequences_are_shown(tree):
    name = "\x1b]0;owned\x07"
    save(tree / "train" / name / "a.png", colour(0))
    with pytest.raises(DataError, match=r"in one only: \\x1b\]0;owned\\x07"):
        load(tree)
