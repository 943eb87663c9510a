"""Replacing functions of torch for the code inside a `with` block.

The networks come from open_clip and timm, and call torch by themselves. This is the only way to give them another
attention without a copy of their code. Nothing else in the package intercepts calls of torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch.overrides import TorchFunctionMode


class TorchCalls(TorchFunctionMode):
    """Inside `with TorchCalls({F.linear: other}):`, calls of `F.linear` go to `other`.

    `other` gets the same arguments; it may call the replaced function itself. Blocks can be nested: the innermost
    replacement of a function is used.
    """

    def __init__(self, replacements: Mapping[Callable[..., Any], Callable[..., Any]]) -> None:
        super().__init__()
        self._replacements = replacements

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self._replacements.get(function, function)(*args, **(kwargs or {}))
