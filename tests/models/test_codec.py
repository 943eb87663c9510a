"""The codec: no cosine is off by more than its bound, and damaged bytes are a ValueError."""

from __future__ import annotations

import random
import struct
import zlib

import numpy as np
import pytest

from proxyclip.models.codec import CODECS, codec_named, decode_grid, encode_grid

ROUNDING = 2e-6  # of float32 sums


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def smooth_grid(height, width, dim, rank, seed=0, noise=0.02):
    """Unit patches near a space of `rank` dimensions, with some noise in all others."""
    rng = np.random.default_rng(seed)
    mixed = rng.standard_normal((height, width, rank)) @ unit(rng.standard_normal((rank, dim)))
    return unit(mixed / rank**0.5 + noise * rng.standard_normal((height, width, dim)) / dim**0.5)


def noise_grid(height, width, dim, seed=0):
    return unit(np.random.default_rng(seed).standard_normal((height, width, dim)))


def flat_grid(height, width, dim, seed=0, change=0.0):
    """One patch everywhere, moved by `change` to one side or the other."""
    rng = np.random.default_rng(seed)
    sides = change * rng.choice([-1, 1], (height, width, 1))
    return unit(unit(rng.standard_normal(dim)) + sides * unit(rng.standard_normal(dim)))


GRIDS = {
    "one patch": smooth_grid(1, 1, 64, 3),
    "one row": smooth_grid(1, 30, 64, 3),
    "one column": smooth_grid(30, 1, 64, 3),
    "more numbers a patch than patches": smooth_grid(3, 4, 192, 5),
    "one number a patch": np.ones((4, 5, 1), np.float32),
    "few dimensions": smooth_grid(12, 9, 64, 5),
    "many dimensions": smooth_grid(20, 20, 96, 96),
    "little noise": smooth_grid(16, 17, 64, 8, noise=0.002),
    "much noise": smooth_grid(16, 17, 64, 8, noise=0.3),
    "only noise": noise_grid(20, 21, 128),
    "flat": flat_grid(9, 9, 64),
    "all but flat": flat_grid(9, 9, 64, change=0.0035),
    "zeros": np.zeros((3, 3, 8), np.float32),
    "opposite patches cancel": flat_grid(6, 6, 64) * np.where(np.arange(6) % 2, 1e-3, 1).astype(np.float32)[:, None],
}


def restored(encoded):
    factors = decode_grid(encoded.codec, encoded.data)
    return factors.coefficients if factors.basis is None else factors.coefficients @ factors.basis


def check(grid, codec, seed=0):
    """Encode a grid; every cosine with a unit vector is within the error that it says, and that within the bound."""
    encoded = encode_grid(grid, codec)
    found = restored(encoded)
    assert found.shape == grid.shape
    assert found.dtype == np.float32
    assert encoded.max_error <= CODECS[encoded.codec].max_error
    texts = unit(np.random.default_rng(seed + 1).standard_normal((40, grid.shape[-1])))
    assert np.abs((found - grid) @ texts.T).max() <= encoded.max_error + ROUNDING
    worst = unit((found - grid).reshape(-1, grid.shape[-1]) + 1e-12)  # texts that point along the errors
    largest = np.abs((found - grid).reshape(-1, grid.shape[-1]) * worst).sum(axis=-1).max()
    assert largest == pytest.approx(encoded.max_error, abs=ROUNDING)
    return encoded


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("name", GRIDS)
def test_cosines_are_off_by_at_most_the_bound(name, codec):
    check(GRIDS[name], codec)


@pytest.mark.parametrize("seed", range(20))
def test_cosines_are_off_by_at_most_the_bound_for_any_shape_and_rank(seed):
    rng = np.random.default_rng(seed)
    height, width, dim = (int(rng.integers(1, most)) for most in (24, 24, 130))
    rank = int(rng.integers(1, dim + 1))
    grid = smooth_grid(height, width, dim, rank, seed, noise=10 ** rng.uniform(-4, 0))
    check(grid, "exact", seed)
    check(grid, "compact", seed)


@pytest.mark.parametrize("dim", [48, 200])
@pytest.mark.parametrize("change", [0.0031, 0.0034, 0.0038, 0.005, 0.02])
def test_an_image_that_is_all_but_flat_is_compact(change, dim):
    """Its second component is about as weak as the weakest one kept, so it gets the fewest digits."""
    for seed in range(5):
        assert check(flat_grid(10, 10, dim, seed, change), "compact").codec == "compact"


def test_noise_that_cannot_meet_the_bound_is_stored_exactly():
    """With this many dimensions, rounded coefficients alone exceed the bound of compact."""
    grid = noise_grid(36, 36, 1600)
    encoded = check(grid, "compact")
    assert encoded == encode_grid(grid, "exact")
    assert encoded.codec == "exact"


@pytest.mark.parametrize("name", GRIDS)
def test_exact_is_off_by_at_most_a_half_of_a_float16_step(name):
    assert encode_grid(GRIDS[name], "exact").max_error <= 2**-11


def test_a_smooth_image_shrinks():
    grid = smooth_grid(51, 51, 192, 20)
    sizes = {codec: len(encode_grid(grid, codec).data) for codec in CODECS}
    assert sizes["compact"] < grid.nbytes / 40
    assert sizes["exact"] < grid.nbytes / 2


def test_a_large_flat_image_is_read_back():
    """Nothing shrinks more than this: the check on the sizes that a header claims must let it pass."""
    grid = flat_grid(1, 1, 64) * np.ones((300, 300, 1), np.float32)
    for codec in CODECS:
        assert len(check(grid, codec).data) < grid.nbytes / 1000


@pytest.mark.parametrize("codec", CODECS)
def test_the_same_grid_gives_the_same_bytes(codec):
    grid = smooth_grid(12, 9, 64, 5)
    first = encode_grid(grid, codec)
    assert encode_grid(grid.copy(), codec) == first
    assert encode_grid(np.asfortranarray(grid), codec) == first
    assert encode_grid(smooth_grid(12, 9, 64, 5, seed=1), codec) != first


def test_an_unknown_codec_is_refused():
    message = "Unknown codec 'tiny' of features; this version reads exact, compact"
    for use in (codec_named, lambda name: encode_grid(GRIDS["flat"], name), lambda name: decode_grid(name, b"")):
        with pytest.raises(ValueError, match=message):
            use("tiny")


@pytest.mark.parametrize("codec", CODECS)
def test_every_truncated_file_is_refused(codec):
    data = encode_grid(smooth_grid(4, 5, 24, 3), codec).data
    for length in range(len(data)):
        with pytest.raises(ValueError, match=f"features of codec {codec} are damaged"):
            decode_grid(codec, data[:length])


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("junk", [b"\0" * 100, b"\xff" * 100, b"not features, but a text of some length"], ids=repr)
def test_what_was_never_features_is_refused(codec, junk):
    with pytest.raises(ValueError, match=f"features of codec {codec} are damaged"):
        decode_grid(codec, junk)


SIZES = ("height", "width", "dim", "rank")  # the numbers after the checksum


def sealed(data):
    """The bytes with the checksum that they should have, as somebody would write who has another idea of the sizes."""
    return struct.pack("<I", zlib.crc32(data[4:])) + data[4:]


CLAIMS = [(codec, size, claim) for codec in CODECS for size in SIZES for claim in (0, 2**16, 2**31, 2**32 - 1)]


@pytest.mark.parametrize(("codec", "size", "claim"), [claim for claim in CLAIMS if claim != ("exact", "rank", 0)])
def test_sizes_that_the_bytes_cannot_hold_are_refused(codec, size, claim):
    """Before memory is taken for them."""
    data = encode_grid(smooth_grid(4, 5, 24, 3), codec).data
    sizes = dict(zip(SIZES, struct.unpack_from("<4I", data, 4), strict=True))
    assert (sizes["height"], sizes["width"], sizes["dim"]) == (4, 5, 24)
    sizes[size] = claim
    with pytest.raises(ValueError, match=f"features of codec {codec} are damaged"):
        decode_grid(codec, sealed(data[:4] + struct.pack("<4I", *sizes.values()) + data[20:]))


@pytest.mark.parametrize("codec", CODECS)
def test_all_sizes_at_their_largest_are_refused(codec):
    data = encode_grid(smooth_grid(4, 5, 24, 3), codec).data
    with pytest.raises(ValueError, match="cannot hold"):
        decode_grid(codec, sealed(b"\xff" * 20 + data[20:]))


@pytest.mark.parametrize("codec", CODECS)
def test_every_flipped_bit_is_noticed(codec):
    encoded = encode_grid(smooth_grid(6, 7, 24, 3), codec)
    rng = random.Random(0)
    for _ in range(300):
        data = bytearray(encoded.data)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        with pytest.raises(ValueError, match="damaged"):
            decode_grid(encoded.codec, bytes(data))


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # damaged scales overflow
def test_damage_under_a_right_checksum_is_refused_or_gives_as_many_numbers(codec, seed):
    """No other exception, and never more numbers than the original's: damage can only swap sizes for their like."""
    grid = smooth_grid(6, 7, 24, 3)
    encoded = encode_grid(grid, codec)
    whole = decode_grid(encoded.codec, encoded.data)
    rng = random.Random(seed)
    refused = 0
    for _ in range(300):
        data = bytearray(encoded.data)
        for _ in range(rng.choice([1, 1, 2, 8])):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        if rng.random() < 0.2:
            del data[rng.randrange(len(data)) :]
        try:
            found = decode_grid(encoded.codec, sealed(bytes(data)))
        except ValueError:
            refused += 1
            continue
        assert found.coefficients.dtype == np.float32
        assert found.coefficients.size <= 2 * whole.coefficients.size
        assert found.basis is None or found.basis.shape[0] == found.coefficients.shape[-1]
    assert refused > 50
