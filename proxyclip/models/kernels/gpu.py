"""What a CUDA device needs to run the networks fast."""

from __future__ import annotations

import torch


class Float32Products:
    """Inside the `with` block, products of float32 matrices on a GPU are exact, or rounded to TF32.

    With networks in bfloat16 or float16, CLIP's last block stays float32. TF32 (10 bits of mantissa, against bfloat16's
    7) takes a fifth of the time there. A block may be entered again and again, also inside itself.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self._tf32 = dtype != torch.float32
        self._before: list[tuple[str, bool]] = []

    def __enter__(self) -> None:
        self._before.append((torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32))
        torch.set_float32_matmul_precision("high" if self._tf32 else "highest")
        torch.backends.cudnn.allow_tf32 = self._tf32

    def __exit__(self, *error: object) -> None:
        precision, convolutions = self._before.pop()
        torch.set_float32_matmul_precision(precision)
        torch.backends.cudnn.allow_tf32 = convolutions
