"""Segmenter: encode an image once, decode it for any vocabulary."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias
from weakref import WeakKeyDictionary

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from proxyclip.config import DecodeConfig, Dtype, SegmenterConfig
from proxyclip.images.reading import ResizedImage, load_image, read_image, resize_image, resized_hw
from proxyclip.models.attention import method_named, mix_by_proxy, proxy_attention, resize_values
from proxyclip.models.cpu_kernels import CpuKernels
from proxyclip.models.decoding.decode import LOGITS_AT_ONCE, Decoded, decode_features, dense_logits
from proxyclip.models.decoding.queries import Queries
from proxyclip.models.decoding.refine import pamr, pamr_affinity
from proxyclip.models.features import DenseFeatures, Segmentation
from proxyclip.models.memory import Portion
from proxyclip.models.networks.clip import ClipEncoder
from proxyclip.models.networks.clip_timm import as_clip
from proxyclip.models.networks.proxy import Proxy, TimmProxy, check_scale
from proxyclip.models.networks.proxy_maps import FeatureMapProxy, as_proxy
from proxyclip.models.networks.proxy_sam import SamProxy
from proxyclip.models.text import cached_embeddings
from proxyclip.models.windows import WindowPlan, cut_windows, plan_windows, shrink_windows
from proxyclip.vocabulary.names import Vocabulary, ignore_label

if TYPE_CHECKING:
    from PIL import Image

ImageSource: TypeAlias = "str | Path | bytes | Image.Image | np.ndarray | ResizedImage"


class Segmenter:
    """ProxyCLIP (2408.04883) and its relatives over sliding windows, training-free.

    clip: a `ClipEncoder` or an open_clip model. proxy: a `TimmProxy`, `FeatureMapProxy` or `SamProxy`, or a timm vision
    transformer; needed by methods that use one. batch_windows: windows that go through the encoders together on a GPU;
    on a CPU they go one by one, which is as fast, and keeps every bit of a result independent of its batch. Where the
    GPU's memory does not suffice for that many, they are halved, once and for all.
    """

    def __init__(
        self,
        clip: ClipEncoder | nn.Module,
        proxy: TimmProxy | FeatureMapProxy | SamProxy | nn.Module | None = None,
        config: SegmenterConfig | None = None,
        *,
        device: str | torch.device = "cpu",
        batch_windows: int = 8,
    ) -> None:
        self.config = config or SegmenterConfig()
        model = self.config.model
        if batch_windows < 1:
            raise ValueError(f"batch_windows must be at least 1, found {batch_windows}.")
        self.method = method_named(model.method, model.residual)
        self.device = torch.device(device)
        self._windows_at_once = Portion("windows", _windows_at_once(self.device, batch_windows))
        logits_at_once = LOGITS_AT_ONCE.get(self.device.type, LOGITS_AT_ONCE["cuda"])
        self._logits_at_once = Portion("logits", logits_at_once, smallest=logits_at_once // 64)
        self.clip = (clip if isinstance(clip, ClipEncoder) else as_clip(clip)).to(self.device)
        self.clip.set_trunk_dtype(getattr(torch, model.dtype))
        self._kernels = CpuKernels() if self.device.type == "cpu" else contextlib.nullcontext()
        self._embeddings: dict[tuple[str, ...], Tensor] = {}
        self._queries: WeakKeyDictionary[Vocabulary, Queries] = WeakKeyDictionary()
        self.proxy: Proxy | None = None
        if self.method.attention is None:
            if proxy is None:
                raise ValueError(f"Method {model.method!r} needs a proxy; pass one, or choose another method.")
            adapted = proxy if isinstance(proxy, TimmProxy | FeatureMapProxy | SamProxy) else as_proxy(proxy)
            check_scale(adapted, model.proxy_scale)
            self.proxy = adapted.to(self.device)
            self.proxy.set_trunk_dtype(getattr(torch, model.dtype))

    @classmethod
    def from_config(cls, config: SegmenterConfig, **kwargs: Any) -> Segmenter:
        """Load the networks that a configuration names; `kwargs` as in the constructor."""
        from proxyclip.models.networks.weights import load_clip, load_proxy

        needs_proxy = method_named(config.model.method).attention is None
        return cls(
            load_clip(config.model),
            load_proxy(config.model, config.windows.crop) if needs_proxy else None,
            config,
            **kwargs,
        )

    @classmethod
    def from_preset(cls, name: str, *, quality: str = "exact", dtype: Dtype | None = None, **kwargs: Any) -> Segmenter:
        """Load a named recipe of `proxyclip.recipes.presets`; `kwargs` as in the constructor.

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
        """Windows that go through the encoders together: `batch_windows`, or what of them memory allows."""
        return self._windows_at_once.size

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
        """Encode several images, their windows together; each as if it were alone.

        Raises `models.memory.OutOfMemory` where not even one window at a time fits.
        """
        return self._windows_at_once.fit(lambda size: self._encode_images(images, size))

    def _encode_images(self, images: Sequence[ImageSource], windows_at_once: int) -> list[DenseFeatures]:
        plans, windows, inputs = [], [], []
        for image in images:
            resized = self._resized(image)
            plan = plan_windows(resized.original_hw, self.config.windows)
            plans.append(plan)
            inputs.append(self._on_device(resized.pixels))
            windows.append(self._windows(inputs[-1], plan))
        features: list[list[Tensor]] = [[] for _ in images]
        for owners, batch in _batches(plans, windows, windows_at_once):
            for owner, dense in zip(owners, self.encode_windows(batch), strict=False):  # the rest fills the batch
                features[owner].append(dense)
        return [
            DenseFeatures(torch.stack(found).unflatten(0, (len(plan.y.starts), -1)), plan, resized)
            for found, plan, resized in zip(features, plans, inputs, strict=True)
        ]

    @torch.inference_mode()
    def decode(
        self,
        features: DenseFeatures,
        vocabulary: Vocabulary,
        config: DecodeConfig | None = None,
        image: np.ndarray | None = None,
    ) -> Segmentation:
        """The cheap half, per vocabulary. config: other thresholds than the segmenter's.

        Raises `models.memory.OutOfMemory` where the labels do not fit, however few at a time are decoded.
        """
        labels = self.labels(features, vocabulary, config)
        return Segmentation(
            labels.winner.cpu().numpy().astype(np.uint8 if ignore_label(vocabulary.num_classes) == 255 else np.uint16),
            labels.confidence.cpu().numpy(),
            labels.margin.cpu().numpy(),
            vocabulary,
            image,
        )

    @torch.inference_mode()
    def labels(self, features: DenseFeatures, vocabulary: Vocabulary, config: DecodeConfig | None = None) -> Decoded:
        """What `decode` finds, left on the device: the winner is the mask, with its thresholds applied."""
        config = config or self.config.decode
        background = vocabulary.background
        for threshold in ("background_threshold", "area_threshold"):
            if getattr(config, threshold) > 0 and background is None:
                raise ValueError(
                    f"{threshold} is {getattr(config, threshold)}, but vocabulary {vocabulary.name!r} has no "
                    "background class; name one, or set the threshold to 0."
                )

        def decoded_with(logits_at_once: int) -> Decoded:
            return decode_features(
                features.features,
                features.plan,
                self._on_device_once(vocabulary),
                logit_scale=config.logit_scale,
                refine=self._refinement(features, config),
                area_threshold=config.area_threshold,
                background=background,
                logits_at_once=logits_at_once,
            )

        decoded = self._logits_at_once.fit(decoded_with)
        mask = decoded.winner
        if background is not None:
            mask = mask.masked_fill(decoded.confidence < config.background_threshold, background)
        if config.ignore_below > 0:
            mask = mask.masked_fill(decoded.confidence < config.ignore_below, ignore_label(vocabulary.num_classes))
        return dataclasses.replace(decoded, winner=mask)

    @torch.inference_mode()
    def logits(self, features: DenseFeatures, vocabulary: Vocabulary) -> Tensor:
        """Cosine of every pixel with every query, refined if so configured: (Q, H, W), which may be large."""
        cosines = dense_logits(features.features, features.plan, self.embed(vocabulary).to(self.device))
        refine = self._refinement(features, self.config.decode)
        return refine(cosines) if refine else cosines

    def embed(self, vocabulary: Vocabulary) -> Tensor:
        """Text embeddings (Q, E) of a vocabulary: its own, or the text tower's, kept in memory and on disk."""
        if vocabulary.embeddings is None:
            if vocabulary.queries not in self._embeddings:
                self._embeddings[vocabulary.queries] = cached_embeddings(self.clip, vocabulary.queries)
            return self._embeddings[vocabulary.queries]
        if vocabulary.embeddings.shape[1] != self.clip.embed_dim:
            raise ValueError(
                f"Vocabulary {vocabulary.name!r} brings embeddings of width {vocabulary.embeddings.shape[1]}; this "
                f"CLIP has {self.clip.embed_dim}. Embeddings belong to the CLIP that made them."
            )
        return torch.tensor(vocabulary.embeddings)

    def _on_device_once(self, vocabulary: Vocabulary) -> Queries:
        """What decoding needs of a vocabulary, kept for as long as it is in use."""
        if vocabulary not in self._queries:
            embeddings, query_class = self.embed(vocabulary), torch.tensor(vocabulary.query_class)
            self._queries[vocabulary] = Queries.of(embeddings.to(self.device), query_class.to(self.device))
        return self._queries[vocabulary]

    def with_embeddings(self, vocabulary: Vocabulary) -> Vocabulary:
        """The vocabulary with its text embeddings inside, so that no text tower is needed to use it."""
        return dataclasses.replace(vocabulary, embeddings=self.embed(vocabulary).numpy())

    def _resized(self, image: ImageSource) -> ResizedImage:
        if isinstance(image, ResizedImage):
            return image
        windows = self.config.windows
        if windows.fast_decode and isinstance(image, str | Path | bytes):
            return read_image(image if isinstance(image, bytes) else Path(image).read_bytes(), windows)
        pixels = load_image(image)
        original_hw = (pixels.shape[0], pixels.shape[1])
        return ResizedImage(resize_image(pixels, resized_hw(original_hw, windows)), original_hw)

    def _on_device(self, resized: np.ndarray) -> Tensor:
        """(h, w, 3) uint8 array to a (3, h, w) tensor."""
        writable = np.require(resized, requirements=("C", "W"))  # torch refuses flipped and read-only views
        pixels = torch.from_numpy(writable)
        if self.device.type == "cuda":
            pixels = pixels.pin_memory()  # else the copy would wait until the GPU is idle
        return pixels.to(self.device, non_blocking=True).permute(2, 0, 1)

    def _windows(self, resized: Tensor, plan: WindowPlan) -> Tensor:
        """(num_windows, 3, h, w) float32 in [0, 1], padded with CLIP's mean colour."""
        return cut_windows(resized.float() / 255, plan, _constant(tuple(self.clip.mean), self.device))

    def _refinement(self, features: DenseFeatures, config: DecodeConfig) -> Callable[[Tensor], Tensor] | None:
        """PAMR guided by the normalised image at the size of the labels, if the configuration asks for it."""
        if config.pamr_steps == 0:
            return None
        image = _normalise(features.resized[None].float() / 255, self.clip.mean, self.clip.std)
        guide = F.interpolate(image, size=features.image_hw, mode="bilinear", align_corners=False)[0]
        affinity = pamr_affinity(guide, config.pamr_dilations)
        return lambda cosines: pamr(cosines, affinity, config.pamr_dilations, config.pamr_steps)

    def encode_windows(self, windows: Tensor) -> Tensor:
        """The networks alone: windows (B, 3, h, w) in [0, 1] to unit dense features (B, grid_h, grid_w, E)."""
        with self._kernels:
            return self._dense(windows)

    def _dense(self, windows: Tensor) -> Tensor:
        tokens, grid_hw = self.clip.trunk(_normalise(windows, self.clip.mean, self.clip.std))
        if self.proxy is None:
            dense = self.clip.attend(tokens, grid_hw, self.method)
        else:
            model = self.config.model
            if self.proxy.patch_px and model.proxy_scale != 1:
                windows = shrink_windows(windows, model.proxy_scale, self.proxy.patch_px)
            features, proxy_hw = self.proxy(_normalise(windows, self.proxy.mean, self.proxy.std))
            weights = proxy_attention(features, beta=model.beta, gamma=model.gamma, dtype=getattr(torch, model.dtype))
            values = resize_values(self.clip.values(tokens, grid_hw), grid_hw, proxy_hw)
            dense, grid_hw = self.clip.project(mix_by_proxy(weights, values)), proxy_hw
        return dense.unflatten(1, grid_hw)


def _windows_at_once(device: torch.device, batch_windows: int) -> int:
    # Matrix products of another height round differently, so on a CPU a batch would change the last bits.
    return 1 if device.type == "cpu" else batch_windows


def _batches(plans: Sequence[WindowPlan], windows: Sequence[Tensor], size: int) -> Iterator[tuple[list[int], Tensor]]:
    """Windows of equal size from several images, with the image each belongs to.

    Every batch has exactly `size` windows, the last filled up with copies, so that its shape, and with
    it the rounding, does not depend on how many images came together.
    """
    by_size: dict[tuple[int, int], list[tuple[int, Tensor]]] = {}
    for owner, (plan, cut) in enumerate(zip(plans, windows, strict=True)):
        by_size.setdefault(plan.padded_hw, []).extend((owner, window) for window in cut)
    for group in by_size.values():
        for start in range(0, len(group), size):
            part = group[start : start + size]
            filled = part + part[-1:] * (size - len(part))
            yield [owner for owner, _ in part], torch.stack([window for _, window in filled])


def _normalise(pixels: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    means, deviations = (_constant(tuple(values), pixels.device).view(1, 3, 1, 1) for values in (mean, std))
    return (pixels - means) / deviations


@lru_cache
def _constant(values: tuple[float, ...], device: torch.device) -> Tensor:
    """float32 numbers that are on a device already: to bring them there anew, a GPU would have to be idle."""
    return torch.tensor(values, device=device)
