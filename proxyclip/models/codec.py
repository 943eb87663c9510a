"""Dense features as bytes, and back: smaller, and off by no more than a stated bound, whatever the vocabulary.

`compact` writes the patches of an image in a basis of their own, the eigenvectors of their second moments. Coefficients
are multiples of one step, so that all have the same error. A component that is weak on all patches needs fewer digits
of its basis vector; one that is weaker than the step is left out. zstd takes what is left of the redundancy.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Floats = npt.NDArray[np.float32]

# CRC-32 of all that follows; height, width, E and R; the step of the coefficients.
_HEAD = struct.Struct("<IIIIIf")
_ZSTD_LEVEL = 9
# zstd makes at most this many bytes of one: a block of up to 128 KiB takes at least 4.
_ZSTD_MOST = 2**15


@dataclass(frozen=True)
class Codec:
    """A level of storage.

    max_error: bound on the error of a patch, in Euclidean length; a unit text embedding's cosine is off by at most
    that. step: of the coefficients; 0 stores float16 instead.
    """

    name: str
    max_error: float
    step: float = 0.0


CODECS = {codec.name: codec for codec in (Codec("exact", 0.001), Codec("compact", 0.08, 0.008))}

# What of a component may be lost, in steps: the error of all basis vectors together, and the weakest component kept.
# If an image exceeds the bound with the first pair, it gets the next.
_LOSSES = ((1.0, 0.3), (0.5, 0.15), (0.25, 0.05))


@dataclass(frozen=True)
class Factors:
    """The patches of an image as a product: `coefficients @ basis`, or the coefficients alone if `basis` is None.

    coefficients: (h, w, R) float32. basis: (R, E) float32, or None and R = E.
    """

    coefficients: Floats
    basis: Floats | None


@dataclass(frozen=True)
class Encoded:
    """Features as bytes. codec: a key of CODECS. max_error: the largest error of a patch, measured."""

    codec: str
    data: bytes
    max_error: float


def encode_grid(grid: Floats, codec: str) -> Encoded:
    """The patches of an image (h, w, E) as bytes. An image that exceeds the bound of its codec is stored as `exact`.

    Raises ValueError for an unknown codec.
    """
    level = codec_named(codec)
    if level.step:
        for basis_loss, weakest in _LOSSES:
            data = _compact(grid, level.step, basis_loss, weakest)
            error = _largest_error(grid, decode_grid(codec, data))
            if error <= level.max_error:
                return Encoded(codec, data, error)
    height, width, dim = grid.shape
    data = _file((height, width, dim, 0, 0.0), _zstd(_planes(grid.astype("<f2"))))
    return Encoded("exact", data, _largest_error(grid, decode_grid("exact", data)))


def decode_grid(codec: str, data: bytes) -> Factors:
    """The inverse of `encode_grid`, without multiplying the factors. Raises ValueError for damaged bytes."""
    step = codec_named(codec).step
    try:
        checksum, height, width, dim, rank, stored_step = _HEAD.unpack_from(data)
        if zlib.crc32(data[4:]) != checksum:
            raise ValueError("their checksum is another one")
        size = (height * width + dim) * rank if step else 2 * height * width * dim
        if not 0 < size <= _ZSTD_MOST * len(data):  # before memory is taken for it
            raise ValueError(f"{len(data)} bytes cannot hold patches {(height, width, dim)} of rank {rank}")
        body = pa.Codec("zstd").decompress(data[_HEAD.size + 4 * rank :], decompressed_size=size)
        if not step:
            halves = np.frombuffer(body, np.uint8).reshape(2, -1).T.copy().view("<f2")
            return Factors(halves.reshape(height, width, dim).astype(np.float32), None)
        scales = np.frombuffer(data, "<f4", rank, _HEAD.size)
        values = np.frombuffer(body, np.int8)
    except (struct.error, ValueError, OSError, pa.ArrowException) as error:
        raise ValueError(f"features of codec {codec} are damaged: {error}") from error
    basis = values[: rank * dim].reshape(rank, dim) * scales[:, None]
    coefficients = values[rank * dim :].reshape(rank, -1).T * np.float32(stored_step)
    return Factors(np.ascontiguousarray(coefficients).reshape(height, width, rank), basis)


def codec_named(name: str) -> Codec:
    """A level of CODECS. Raises ValueError for another name."""
    if name not in CODECS:
        raise ValueError(f"Unknown codec {name!r} of features; this version reads {', '.join(CODECS)}.")
    return CODECS[name]


def _compact(grid: Floats, step: float, basis_loss: float, weakest: float) -> bytes:
    """basis_loss, weakest: as in _LOSSES."""
    height, width, dim = grid.shape
    patches = grid.reshape(-1, dim).astype(np.float64)
    moments, vectors = np.linalg.eigh(patches.T @ patches / len(patches))
    strengths = np.sqrt(np.maximum(moments[::-1], 0))  # root mean square of each component's coefficients
    rank = max(int((strengths > weakest * step).sum()), 1)
    basis, strengths = vectors.T[::-1][:rank], np.maximum(strengths[:rank], 1e-6)
    # An error of `scale / sqrt(12)` in every number of a basis vector costs a patch `strength` times as much. All
    # components get the same share of the loss.
    scales = basis_loss * step * np.sqrt(12 / (rank * dim)) / strengths
    peaks = np.abs(basis).max(axis=1)
    scales = np.clip(scales, peaks / 127, peaks / 2).astype("<f4")  # numbers fit int8; no vector rounds to zero
    basis_values = np.rint(basis / scales[:, None]).astype(np.int8)
    rounded = basis_values * scales[:, None].astype(np.float64)
    # The best coefficients for the rounded basis: it is no longer orthogonal, and weak vectors may have become equal.
    coefficients = np.linalg.pinv(rounded @ rounded.T, rcond=1e-6, hermitian=True) @ (rounded @ patches.T)
    values = np.rint(coefficients / np.float32(step)).clip(-127, 127).astype(np.int8)
    body = scales.tobytes() + _zstd(basis_values.tobytes() + values.tobytes())
    return _file((height, width, dim, rank, step), body)


def _file(head: tuple[int, int, int, int, float], body: bytes) -> bytes:
    checked = _HEAD.pack(0, *head)[4:] + body
    return struct.pack("<I", zlib.crc32(checked)) + checked


def _largest_error(grid: Floats, factors: Factors) -> float:
    restored = factors.coefficients if factors.basis is None else factors.coefficients @ factors.basis
    return float(np.sqrt(((restored - grid) ** 2).sum(axis=-1).max()))


def _planes(halves: npt.NDArray[np.float16]) -> bytes:
    """The low bytes of all numbers, then the high bytes, which zstd shrinks better."""
    return halves.reshape(-1, 1).view(np.uint8).T.tobytes()


def _zstd(data: bytes) -> bytes:
    compressed: bytes = pa.Codec("zstd", _ZSTD_LEVEL).compress(data, asbytes=True)
    return compressed
