"""Label files: where they are, what their values mean, and what is refused."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from proxyclip.evaluation.confusion import reduce_zero_label
from proxyclip.evaluation.labels.coding import IGNORED, OUTSIDE, Coding, LabelError
from proxyclip.evaluation.labels.files import LabelFiles, read_label


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


VALUES = np.arange(12, dtype=np.uint8).reshape(3, 4)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
def test_palette_and_gray_images_give_their_indices(kind):
    gray = Image.fromarray(VALUES)
    palette = Image.fromarray(VALUES)
    palette.putpalette(np.random.default_rng(0).integers(0, 256, 768, dtype=np.uint8).tobytes())
    for image in (gray, palette):
        assert (read_label(encoded(image, kind)) == VALUES).all()


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_stay_sixteen_bits(kind):
    values = np.array([[0, 255, 256], [846, 65535, 3]], np.uint16)
    found = read_label(encoded(Image.fromarray(values), kind))
    assert (found == values).all()


@pytest.mark.parametrize(("bits", "values"), [(1, [0, 1]), (2, [0, 1, 2, 3]), (4, [0, 7, 15, 2])])
def test_gray_images_of_few_bits_are_not_scaled(bits, values):
    """As optimising tools write them; written here byte by byte, since PIL does not."""
    row = bytearray(-(-len(values) * bits // 8))
    for position, value in enumerate(values):
        start = position * bits
        row[start // 8] |= value << (8 - bits - start % 8)

    def chunk(name, data):
        return struct.pack("!I", len(data)) + name + data + struct.pack("!I", zlib.crc32(name + data))

    head = struct.pack("!IIBBBBB", len(values), 1, bits, 0, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" + bytes(row)))
    assert read_label(png + chunk(b"IEND", b"")).tolist() == [values]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_colour_images_are_refused(mode):
    with pytest.raises(LabelError, match=f"mode {mode}; a label has one channel"):
        read_label(encoded(Image.new(mode, (4, 4))))


@pytest.mark.parametrize("data", [b"", b"text", encoded(Image.fromarray(VALUES))[:-30], b"JPEG"])
def test_damaged_files_and_jpegs_are_refused(data):
    data = encoded(Image.fromarray(VALUES), "JPEG") if data == b"JPEG" else data
    with pytest.raises(LabelError, match="no readable PNG"):
        read_label(data)


def test_a_label_lies_where_its_image_does():
    assert LabelFiles("/labels").key("a.b/c.d.jpg") == "a.b/c.d.png"
    assert LabelFiles("/labels").key("a.b/c") == "a.b/c.png"
    city = LabelFiles("/labels", "_gtFine_labelIds.png", "_leftImg8bit.png")
    assert city.key("ulm/ulm_0_leftImg8bit.png") == "ulm/ulm_0_gtFine_labelIds.png"


def test_a_folder_without_labels_is_refused(tmp_path):
    (tmp_path / "a.tif").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=r"no file there ends in '\.png'; check --labels"):
        LabelFiles(str(tmp_path)).digest()


def test_the_digest_changes_with_every_label_and_with_no_other_file(tmp_path):
    files = LabelFiles(str(tmp_path))
    (tmp_path / "a.png").write_bytes(b"1")
    first = files.digest()
    (tmp_path / "notes.txt").write_bytes(b"1")
    assert files.digest() == first
    (tmp_path / "b.png").write_bytes(b"1")
    second = files.digest()
    (tmp_path / "a.png").write_bytes(b"12")
    assert len({first, second, files.digest()}) == 3


def test_values_become_classes():
    coding = Coding({3: 0, 7: 1}, frozenset({255}), frozenset({65535}))
    found = coding.decode(np.array([[3, 7], [255, 65535]], np.uint16))
    assert found.tolist() == [[0, 1], [IGNORED, OUTSIDE]]


def test_labels_that_count_from_one_are_read_as_reduce_zero_label_does():
    values = np.arange(60, dtype=np.uint8).reshape(6, 10)
    values[0, :3] = 255
    expected = reduce_zero_label(values).astype(int)
    expected[expected == 255] = IGNORED
    assert (Coding.from_one(59, {255}).decode(values) == expected).all()


@pytest.mark.parametrize("values", [[[4, 4, 9]], [[-1, 0, 1]], [[70000, 0, 1]]])
def test_values_without_a_meaning_are_refused(values):
    with pytest.raises(LabelError, match=r"pixels have values without a class: .*\. Count them\."):
        Coding.indices(3, hint="Count them.").decode(np.array(values))
