"""Segmenter: encode an image once, decode it for any vocabulary."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from proxyclip.config import DecodeConfig, Dtype, SegmenterConfig
from proxyclip.images.reading import load_image, read_image
from proxyclip.images.sizes import ResizedImage, resize_image, resized_hw
from proxyclip.models.attention import mix_by_proxy, own_attention, proxy_attention, resize_values
from proxyclip.models.decoding.decode import Decoded
from proxyclip.models.decoding.decoder import Decoder
from proxyclip.models.features import DenseFeatures, Features, Segmentation
from proxyclip.models.kernels.int8 import check_int8
from proxyclip.models.kernels.of_device import network_kernels
from proxyclip.models.kernels.precision import torch_dtype
from proxyclip.models.memory import BatchSize
from proxyclip.models.networks.clip import ClipEncoder
from proxyclip.models.networks.clip_timm import as_clip
from proxyclip.models.networks.proxy import Proxy, check_scale
from proxyclip.models.networks.proxy_maps import as_proxy
from proxyclip.models.pixels import colour_on, normalise, pixels_on
from proxyclip.models.text import cached_embeddings
from proxyclip.models.windows import WindowPlan, batch_windows, cut_windows, plan_windows, shrink_windows
from proxyclip.recipes.methods import method_named
from proxyclip.vocabulary.heads import Head
from proxyclip.vocabulary.names import Vocabulary, ignore_label

if TYPE_CHECKING:
    from PIL import Image

ImageSource: TypeAlias = "str | Path | bytes | Image.Image | np.ndarray | ResizedImage"


class Segmenter:
    """ProxyCLIP (2408.04883) and related training-free methods, over sliding windows.

    clip: a `ClipEncoder` or an open_clip model. proxy: a `Proxy` or a timm vision transformer; only some methods need
    one. batch_windows: windows that go through the networks together on a GPU; it halves when memory runs out. On a
    CPU windows go one by one: that is as fast, and results are bit-identical regardless of batching. head: as for a
    `Decoder`. compiled: run whole windows through `torch.compile`, which rounds a little differently; ValueError on a
    CPU.
    """

    def __init__(
        self,
        clip: ClipEncoder | nn.Module,
        proxy: Proxy | nn.Module | None = None,
        config: SegmenterConfig | None = None,
        *,
        device: str | torch.device = "cpu",
        batch_windows: int = 32,
        head: Head | None = None,
        compiled: bool = False,
    ) -> None:
        self.config = config or SegmenterConfig()
        model = self.config.model
        if batch_windows < 1:
            raise ValueError(f"batch_windows must be at least 1, found {batch_windows}.")
        self.method = method_named(model.method, model.residual)
        self.device = torch.device(device)
        self._batch_size = BatchSize("windows", 1 if self.device.type == "cpu" else batch_windows)
        dtype = torch_dtype(model.dtype)
        self.clip = (clip if isinstance(clip, ClipEncoder) else as_clip(clip)).to(self.device)
        self.clip.set_trunk_dtype(dtype)
        self.proxy: Proxy | None = None
        if self.method.needs_proxy:
            if proxy is None:
                raise ValueError(f"Method {model.method!r} needs a proxy; pass one, or choose another method.")
            self.proxy = (proxy if isinstance(proxy, Proxy) else as_proxy(proxy)).to(self.device)
            check_scale(self.proxy, model.proxy_scale)
            self.proxy.set_trunk_dtype(dtype)
        in_int8 = None
        if model.dtype == "int8":
            check_int8(self.device, self.proxy)
            in_int8 = self.proxy
        self._kernels = network_kernels(self.device, dtype, in_int8)
        if compiled and self.device.type == "cpu":
            raise ValueError("compiled is for GPUs; on a CPU the networks have kernels of their own.")
        self._compiled = torch.compile(self._run_networks, dynamic=False) if compiled else None
        encoder = self.clip  # so that the decoder does not refer back to the segmenter
        self._decoder = Decoder(
            self.config.decode,
            mean=self.clip.mean,
            std=self.clip.std,
            device=self.device,
            embed=lambda vocabulary: cached_embeddings(encoder, vocabulary.queries),
            head=head,
        )

    @classmethod
    def from_config(cls, config: SegmenterConfig, **kwargs: Any) -> Segmenter:
        """Load the networks that a configuration names. `kwargs`: as in the constructor."""
        from proxyclip.models.networks.weights import load_clip, load_proxy

        needs_proxy = method_named(config.model.method).needs_proxy
        proxy = load_proxy(config.model, config.windows.crop) if needs_proxy else None
        return cls(load_clip(config.model), proxy, config, **kwargs)

    @classmethod
    def from_preset(cls, name: str, *, quality: str = "exact", dtype: Dtype | None = None, **kwargs: Any) -> Segmenter:
        """Load a named recipe of `proxyclip.recipes.presets`. `kwargs`: as in the constructor.

        quality: exact, balanced or fast (`proxyclip.recipes.quality`).
        dtype: precision of the networks; by default bfloat16 on a GPU and float32 on a CPU, as in the job.
        """
        from proxyclip.recipes.presets import preset
        from proxyclip.recipes.quality import quality as quality_named

        config = quality_named(quality).applied_to(preset(name).config)
        dtype = dtype or ("float32" if torch.device(kwargs.get("device", "cpu")).type == "cpu" else "bfloat16")
        return cls.from_config(
            dataclasses.replace(config, model=dataclasses.replace(config.model, dtype=dtype)), **kwargs
        )

    @property
    def windows_at_once(self) -> int:
        """Windows that go through the networks together. Set it to try another number than the device's own."""
        return self._batch_size.size

    @windows_at_once.setter
    def windows_at_once(self, size: int) -> None:
        self._batch_size.size = size

    def predict(self, image: str | Path | bytes | Image.Image | np.ndarray, vocabulary: Vocabulary) -> Segmentation:
        """Label one image: a path, encoded bytes, a PIL image or an RGB uint8 array (H, W, 3)."""
        pixels = load_image(image)
        source = image if self.config.windows.fast_decode else pixels
        return self.decode(self.encode(source), vocabulary, image=pixels)

    def encode(self, image: ImageSource) -> DenseFeatures:
        """The expensive half, once per image."""
        return self.encode_batch([image])[0]

    @torch.inference_mode()
    def encode_batch(self, images: Sequence[ImageSource]) -> list[DenseFeatures]:
        """Encode several images, their windows in common batches. Each result is as if its image were alone.

        Raises `models.memory.OutOfMemory` if not even one window fits into memory.
        """
        return self._batch_size.fit(lambda size: self._encode_images(images, size))

    def _encode_images(self, images: Sequence[ImageSource], windows_at_once: int) -> list[DenseFeatures]:
        prepared: list[tuple[WindowPlan, Tensor, Tensor | None]] = []
        grids: list[list[Tensor]] = [[] for _ in images]

        def windows() -> Iterator[Tensor]:
            """Windows image by image: a GPU computes while the next images are resized and cut."""
            padding = colour_on(self.device, tuple(self.clip.mean))
            for source in images:
                image = self._resized(source)
                plan = plan_windows(image.original_hw, self.config.windows)
                pixels = pixels_on(self.device, image.pixels)
                regions = None if image.regions is None else torch.from_numpy(image.regions).to(self.device)
                prepared.append((plan, pixels, regions))
                yield cut_windows(pixels.float() / 255, plan, padding)

        for owners, batch in batch_windows(windows(), windows_at_once):
            for owner, grid in zip(owners, self.encode_windows(batch), strict=False):  # without the copies at the end
                grids[owner].append(grid)
        return [
            DenseFeatures(torch.stack(grid).unflatten(0, (len(plan.y.starts), -1)), plan, pixels, regions)
            for grid, (plan, pixels, regions) in zip(grids, prepared, strict=True)
        ]

    def encode_windows(self, windows: Tensor) -> Tensor:
        """Run the networks: windows (B, 3, h, w) in [0, 1] to unit dense features (B, grid_h, grid_w, E)."""
        clip_pixels = normalise(windows, self.clip.mean, self.clip.std)
        proxy_pixels = None if self.proxy is None else self._proxy_pixels(self.proxy, windows)
        # Only windows of the full size are worth a compilation: a corpus has many other sizes, each seldom.
        whole = set(windows.shape[2:]) == {self.config.windows.crop}
        run = self._compiled if self._compiled is not None and whole else self._run_networks
        with self._kernels:
            return run(clip_pixels, proxy_pixels)

    def _proxy_pixels(self, proxy: Proxy, windows: Tensor) -> Tensor:
        scale = self.config.model.proxy_scale
        if proxy.patch_px and scale != 1:
            windows = shrink_windows(windows, scale, proxy.patch_px)
        return normalise(windows, proxy.mean, proxy.std)

    def _run_networks(self, clip_pixels: Tensor, proxy_pixels: Tensor | None) -> Tensor:
        """Normalised windows, each as its network takes them, to dense features (B, grid_h, grid_w, E)."""
        tokens, grid_hw = self.clip.trunk(clip_pixels)
        if self.proxy is None or proxy_pixels is None:
            attention = own_attention(self.config.model)
            return self.clip.attend(tokens, grid_hw, attention, residual=self.method.residual).unflatten(1, grid_hw)
        features, proxy_hw = self.proxy(proxy_pixels)
        return self._attend_by_proxy(features, proxy_hw, tokens, grid_hw).unflatten(1, proxy_hw)

    def _attend_by_proxy(
        self, features: Tensor, proxy_hw: tuple[int, int], tokens: Tensor, grid_hw: tuple[int, int]
    ) -> Tensor:
        """CLIP's values mixed by the attention of the proxy's features: dense features (B, N, E) on its grid."""
        model = self.config.model
        weights = proxy_attention(features, beta=model.beta, gamma=model.gamma, dtype=torch_dtype(model.dtype))
        values = resize_values(self.clip.values(tokens, grid_hw), grid_hw, proxy_hw)
        return self.clip.project(mix_by_proxy(weights, values))

    def _resized(self, image: ImageSource) -> ResizedImage:
        if isinstance(image, ResizedImage):
            return image
        windows = self.config.windows
        if windows.fast_decode and isinstance(image, str | Path | bytes):
            return read_image(image if isinstance(image, bytes) else Path(image).read_bytes(), windows)
        pixels = load_image(image)
        original_hw = (pixels.shape[0], pixels.shape[1])
        return ResizedImage(resize_image(pixels, resized_hw(original_hw, windows)), original_hw)

    def decode(
        self,
        features: Features,
        vocabulary: Vocabulary,
        config: DecodeConfig | None = None,
        image: np.ndarray | None = None,
    ) -> Segmentation:
        """The cheap half, per vocabulary. config: other thresholds than the segmenter's.

        Raises `models.memory.OutOfMemory` if the labels do not fit into memory, however few are decoded at a time.
        """
        labels = self.labels(features, vocabulary, config)
        return Segmentation(
            labels.winner.cpu().numpy().astype(np.uint8 if ignore_label(vocabulary.num_classes) == 255 else np.uint16),
            labels.confidence.cpu().numpy(),
            labels.margin.cpu().numpy(),
            vocabulary,
            image,
        )

    def labels(self, features: Features, vocabulary: Vocabulary, config: DecodeConfig | None = None) -> Decoded:
        """The result of `decode`, left on the device. `winner` is the mask, after the thresholds."""
        return self._decoder.labels(features, vocabulary, config or self.config.decode)

    def logits(self, features: Features, vocabulary: Vocabulary) -> Tensor:
        """The cosine of every pixel with every query, after PAMR if configured: (Q, H, W), which may be large."""
        return self._decoder.logits(features, vocabulary)

    def embed(self, vocabulary: Vocabulary) -> Tensor:
        """Text embeddings (Q, E) of a vocabulary on the CPU: its own, or the text tower's (cached on disk)."""
        return self._decoder.embeddings(vocabulary).cpu()

    def with_embeddings(self, vocabulary: Vocabulary) -> Vocabulary:
        """The vocabulary with its text embeddings inside, so that using it needs no text tower."""
        return dataclasses.replace(vocabulary, embeddings=self.embed(vocabulary).numpy())
