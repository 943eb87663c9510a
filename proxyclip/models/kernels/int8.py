"""Linear layers in 8 bits (W8A8) for CPUs with integer instructions (VNNI, AMX), for inference."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

# Of a signed byte, symmetric about 0.
_LARGEST = 127

# With fewer rows, weights take longer to read than to multiply.
_FEW_ROWS = 64


class Int8Linear:
    """`F.linear`, in 8 bits for the linear layers of some networks.

    A weight has a scale per output channel, an input one per token, both from their largest magnitude. Sums are exact
    integers, so a token's result does not depend on the others.

    networks: whose layers; they stay float32 outside. otherwise: what other calls get.
    """

    def __init__(self, networks: nn.Module, otherwise: Callable[..., Tensor]) -> None:
        layers = (module for module in networks.modules() if isinstance(module, nn.Linear))
        self._weights = {id(layer.weight): layer.weight for layer in layers}
        self._quantised: dict[int, tuple[Tensor, Tensor]] = {}
        self._otherwise = otherwise

    def __call__(self, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        if id(weight) not in self._weights or input.numel() < _FEW_ROWS * input.shape[-1]:
            return self._otherwise(input, weight, bias)
        kept = self._quantised.get(id(weight))
        if kept is None:
            values, scale = _quantised(weight.detach())
            kept = self._quantised[id(weight)] = values.t().contiguous(), scale.squeeze(1)
        values, scale = _quantised(input.flatten(0, -2))
        product = torch._int_mm(values, kept[0]) * kept[1]  # (rows, out) float32
        product = product.mul_(scale) if bias is None else torch.addcmul(bias, product, scale)
        return product.unflatten(0, input.shape[:-1])


def _quantised(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rows (N, K) float32 as int8, and the scale of each (N, 1)."""
    scale = torch.linalg.vector_norm(rows, float("inf"), dim=-1, keepdim=True).div_(_LARGEST).clamp_min_(1e-12)
    return (rows / scale).round_().to(torch.int8), scale


def check_int8(device: torch.device, proxy: nn.Module | None) -> None:
    """ValueError if networks cannot run in int8 here."""
    if device.type != "cpu":
        raise ValueError("int8 is for CPUs; use bfloat16 or float16 on a GPU.")
    if proxy is None:
        raise ValueError("int8 quantises the proxy, and this method has none; use float32 or bfloat16.")
