"""Reading one image: formats, modes, orientations, broken files, and resizing."""

import io
import re
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import PIL
import pytest
import torch
from encoded import png_header
from PIL import Image

from proxyclip.config import WindowConfig
from proxyclip.images import reading
from proxyclip.images.errors import ImageError
from proxyclip.images.reading import load_image, read_image, read_pixels
from proxyclip.images.sizes import resize_image

RNG = np.random.default_rng(0)


def encode(image, fmt, **options):
    buffer = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(buffer, fmt, **options)
    return buffer.getvalue()


def smooth(height=48, width=64):
    y, x = np.mgrid[:height, :width]
    return np.stack([y * 255 // height, x * 255 // width, (x + y) * 255 // (height + width)], -1).astype(np.uint8)


@pytest.mark.parametrize("fmt", ["PNG", "BMP", "TIFF", "WEBP"])
def test_lossless_formats_come_back_exactly(fmt):
    options = {"lossless": True} if fmt == "WEBP" else {}
    image = smooth()
    pixels = read_pixels(encode(image, fmt, **options))
    assert pixels.dtype == np.uint8
    assert pixels.flags.writeable
    np.testing.assert_array_equal(pixels, image)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_jpeg_modes_become_rgb(mode):
    image = Image.fromarray(smooth()).convert(mode)
    pixels = read_pixels(encode(image, "JPEG", quality=95))
    assert np.abs(pixels.astype(int) - np.asarray(image.convert("RGB"))).mean() < 3


@pytest.mark.parametrize(
    "fmt_mode", ["PNG 1", "PNG L", "PNG LA", "PNG P", "PNG RGBA", "TIFF YCbCr", "TIFF CMYK", "TIFF LA"]
)
def test_every_mode_becomes_rgb(fmt_mode):
    if fmt_mode == "TIFF YCbCr" and int(PIL.__version__.split(".")[0]) < 13:
        pytest.skip("Pillow reads its own TIFF files of this mode from version 13 on")
    fmt, mode = fmt_mode.split()
    assert read_pixels(encode(Image.fromarray(smooth()).convert(mode), fmt)).shape == (48, 64, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("fmt", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_exif_orientation_is_applied_once(orientation, fmt):
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:8, :16] = 250
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: upright.transpose(1, 0, 2)[::-1],
        7: upright.transpose(1, 0, 2)[::-1, ::-1],
        8: upright.transpose(1, 0, 2)[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(np.ascontiguousarray(stored), fmt, exif=exif)
    np.testing.assert_allclose(read_pixels(data).astype(int), upright, atol=40)


def test_transparent_pixels_are_white():
    rgba = np.zeros((4, 4, 4), np.uint8)
    rgba[:2, :, 3] = 255
    pixels = read_pixels(encode(rgba, "PNG"))
    assert (pixels[:2] == 0).all()
    assert (pixels[2:] == 255).all()


def test_a_transparent_palette_entry_is_white():
    image = Image.fromarray(np.array([[0, 1]], np.uint8))
    image.putpalette([10, 20, 30, 40, 50, 60])
    pixels = read_pixels(encode(image, "PNG", transparency=1))
    assert pixels.tolist() == [[[10, 20, 30], [255, 255, 255]]]


def test_16_bit_gray_is_scaled_not_clipped():
    gray = np.array([[0, 257 * 10, 32768, 65535]], np.uint16)
    for fmt in ("PNG", "TIFF"):
        assert read_pixels(encode(gray, fmt))[0, :, 0].tolist() == [0, 10, 128, 255]


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        (np.array([[0, 0.5, 1]], np.float32), [0, 128, 255]),
        (np.array([[-5, 100, 255]], np.float32), [0, 100, 255]),
        (np.array([[np.nan, 32768, 65535]], np.float32), [0, 128, 255]),
        (np.array([[0, 1, 200]], np.int32), [0, 1, 200]),
        (np.array([[0, 600_000, 1_000_000]], np.int32), [0, 153, 255]),
    ],
)
def test_float_and_32_bit_tiff_take_the_smallest_usual_range(values, wanted):
    assert read_pixels(encode(values, "TIFF"))[0, :, 0].tolist() == wanted


def test_of_an_animation_the_first_frame_is_taken():
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "blue")]
    for fmt in ("GIF", "WEBP"):
        data = encode(frames[0], fmt, save_all=True, append_images=frames[1:], lossless=True)
        assert read_pixels(data)[0, 0].tolist() == [255, 0, 0]


def broken():
    jpeg, png = encode(smooth(), "JPEG"), encode(smooth(), "PNG")
    return {
        "text": b"hello, I am a text file\n",
        "jpeg cut": jpeg[: len(jpeg) // 2],
        "png cut": png[: len(png) // 2],
        "gif cut": encode(smooth(), "GIF")[:300],
        "tiff cut": encode(smooth(), "TIFF")[:200],
        "webp cut": encode(smooth(), "WEBP")[:60],
        "bmp cut": encode(smooth(), "BMP")[:60],
        "riff that is sound": b"RIFF\x24\x00\x00\x00WAVEfmt ",
        "only a magic": b"\xff\xd8\xff",
    }


@pytest.mark.parametrize("name", broken())
def test_broken_bytes_say_decode_failed_the_same_way_each_time(name):
    reasons = set()
    for _ in range(2):
        with pytest.raises(ImageError) as caught:
            read_pixels(bytes(bytearray(broken()[name])))
        assert caught.value.status == "decode_failed"
        reasons.add(caught.value.reason)
    assert len(reasons) == 1
    assert "0x" not in reasons.pop()


def test_zero_bytes_say_empty():
    with pytest.raises(ImageError) as caught:
        read_pixels(b"")
    assert caught.value.status == "empty"


@pytest.mark.parametrize("size", [(100_000, 100_000), (20_000, 20_000), (2**31 - 1, 1)])
def test_a_huge_header_says_too_large_before_pixels_are_read(size):
    with pytest.raises(ImageError) as caught:
        read_pixels(png_header(*size) + b"\x00\x00\x00\x00IDAT")
    assert caught.value.status == "too_large"
    assert f"{size[0]} x {size[1]}" in caught.value.reason


def test_the_limit_is_ours_and_not_that_of_pillow(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_pixels(encode(smooth(), "JPEG")).shape == (48, 64, 3)
    with pytest.raises(ImageError, match="limit of 99"):
        read_pixels(encode(smooth(), "PNG"), max_pixels=99)


def test_no_bytes_raise_anything_but_image_error():
    rng = np.random.default_rng(1)
    for fmt in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"):
        data = np.frombuffer(encode(smooth(), fmt), np.uint8)
        for _ in range(60):
            damaged = data.copy()
            where = rng.integers(0, min(len(data), 400), 6)
            damaged[where] = rng.integers(0, 256, 6)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    pixels = read_pixels(damaged.tobytes(), max_pixels=1_000_000)
            except ImageError:
                continue
            assert pixels.ndim == 3


def test_threads_read_alike():
    data = encode(smooth(200, 300), "JPEG")
    alone = read_pixels(data)
    with ThreadPoolExecutor(8) as pool:
        for pixels in pool.map(read_pixels, [data] * 32):
            np.testing.assert_array_equal(pixels, alone)


@pytest.mark.parametrize("size_hw", [(336, 448), (20, 31), (97, 64), (1, 1), (48, 200), (500, 3)])
@pytest.mark.parametrize("shape", [(48, 64), (301, 200), (1, 7)])
def test_resize_is_bilinear_without_antialias(shape, size_hw):
    image = RNG.integers(0, 256, (*shape, 3), np.uint8)
    chw = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    exact = torch.nn.functional.interpolate(chw, size=size_hw, mode="bilinear", align_corners=False, antialias=False)
    exact = exact[0].permute(1, 2, 0).numpy()
    assert np.abs(resize_image(image, size_hw) - exact).max() < 1.05  # OpenCV's weights have 11 bits


def test_resize_to_the_same_size_is_the_image():
    image = smooth()
    assert resize_image(image, (48, 64)) is image


def test_a_path_bytes_pil_and_an_array_are_the_same_image(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encode(smooth(), "PNG"))
    for source in (path, str(path), path.read_bytes(), Image.open(path), smooth()):
        np.testing.assert_array_equal(load_image(source), smooth())


@pytest.mark.parametrize(
    "array",
    [np.zeros((3, 8, 8), np.uint8), np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3)), np.zeros((0, 8, 3), np.uint8)],
)
def test_an_array_that_is_no_rgb_image_names_what_was_found(array):
    with pytest.raises(ValueError, match=rf"shape {re.escape(str(array.shape))} and type {array.dtype}, not RGB uint8"):
        load_image(array)


def test_a_broken_file_is_named(tmp_path):
    path = tmp_path / "notes.jpg"
    path.write_text("not an image")
    with pytest.raises(ImageError, match=r"notes.jpg: not a JPEG"):
        load_image(path)
    with pytest.raises(FileNotFoundError):
        load_image(tmp_path / "missing.jpg")
    cut = tmp_path / "cut.png"
    cut.write_bytes(broken()["png cut"])
    for source in (cut, Image.open(cut)):
        with pytest.raises(ImageError, match="decode_failed"):
            load_image(source)


def test_an_image_is_read_at_the_size_of_its_windows():
    data = encode(smooth(90, 60), "PNG")
    image = read_image(data, WindowConfig(short_side=40))
    assert image.original_hw == (90, 60)
    np.testing.assert_array_equal(image.pixels, resize_image(read_pixels(data), (60, 40)))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("size_hw", [(333, 500), (500, 333), (401, 400), (99, 400)])
def test_fast_decode_sees_the_same_scene_at_the_same_size(orientation, mode, size_hw):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(Image.fromarray(smooth(*size_hw)).convert(mode), "JPEG", quality=95, exif=exif)
    exact = read_image(data, WindowConfig(short_side=48))
    fast = read_image(data, WindowConfig(short_side=48, fast_decode=True))
    assert fast.original_hw == exact.original_hw
    assert fast.pixels.shape == exact.pixels.shape
    assert np.abs(fast.pixels.astype(int) - exact.pixels).mean() < 4


def test_fast_decode_reads_fewer_pixels_but_never_too_few(monkeypatch):
    seen = []
    monkeypatch.setattr(reading, "resize_image", lambda pixels, size: seen.append((pixels.shape[:2], size)))
    data = encode(smooth(300, 400), "JPEG")
    for short_side in (301, 151, 150, 100, 75, 38, 37, 10):
        read_image(data, WindowConfig(short_side=short_side, fast_decode=True))
    sizes = [(300, 400)] * 2 + [(150, 200)] * 2 + [(75, 100)] * 2 + [(38, 50)] * 2
    assert [shape for shape, _ in seen] == sizes


def test_fast_decode_leaves_other_formats_and_small_jpegs_alone():
    windows = WindowConfig(short_side=48)
    fast = WindowConfig(short_side=48, fast_decode=True)
    for data in (encode(smooth(200, 300), "PNG"), encode(smooth(95, 120), "JPEG")):
        np.testing.assert_array_equal(read_image(data, fast).pixels, read_image(data, windows).pixels)
