"""The methods by name, as data. Their attention functions are in `models.attention`."""

from __future__ import annotations

from dataclasses import dataclass, replace

from proxyclip.recipes.names import look_up


@dataclass(frozen=True)
class Method:
    """How a method uses the last block of CLIP.

    needs_proxy: the attention weights come from a proxy, not from CLIP itself.
    residual: the block keeps its residual path and its MLP.
    """

    needs_proxy: bool = False
    residual: bool = False


METHODS: dict[str, Method] = {
    "clip": Method(residual=True),
    "maskclip": Method(),
    "sclip": Method(residual=True),
    "clearclip": Method(),
    "gem": Method(),
    "naclip": Method(),
    "naclip-kk": Method(),
    "naclip-nonly": Method(),
    "proxyclip": Method(needs_proxy=True),
}


def method_named(name: str, residual: bool | None = None) -> Method:
    """The method of this name. residual: replaces the method's own setting.

    Raises ValueError for an unknown name, and for `residual` with a method that needs a proxy.
    """
    method = look_up(METHODS, name, "method")
    if residual is None:
        return method
    if method.needs_proxy:
        raise ValueError(
            f"Method {name!r} works on the proxy's patch grid, where CLIP has no residual path; leave `residual` out."
        )
    return replace(method, residual=residual)
