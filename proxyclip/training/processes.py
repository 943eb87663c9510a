"""The processes that train together: means and sums over them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from proxyclip.training.order import Place


@dataclass(frozen=True)
class Processes:
    """place: which of them this is. Alone, nothing is exchanged."""

    place: Place

    def sum(self, value: Tensor) -> Tensor:
        """The sum of a tensor over all processes."""
        if self.place.world_size > 1:
            value = value.clone()
            dist.all_reduce(value)
        return value

    def mean(self, value: Tensor) -> Tensor:
        """The mean of a tensor over all processes."""
        return self.sum(value) / self.place.world_size

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Give each parameter the mean of its gradients, in one exchange."""
        if self.place.world_size == 1:
            return
        grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
        flat = self.mean(torch.cat([grad.flatten() for grad in grads]))
        for grad, part in zip(grads, flat.split([grad.numel() for grad in grads]), strict=True):
            grad.copy_(part.view_as(grad))
