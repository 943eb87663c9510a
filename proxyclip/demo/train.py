"""Trains the demo's two networks on drawn scenes. `jobs/train_demo.py` is the command.

CLIP: the values of its last block, taken per patch as MaskCLIP does, are pulled towards the text embedding of the
class drawn there; its image embedding towards the caption of the crop. Proxy: patches of one class in one crop become
similar, the more the nearer they are, patches of two classes dissimilar. It never sees CLIP, text or class names.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from proxyclip.demo import scenes
from proxyclip.models.networks.clip import ClipEncoder
from proxyclip.models.networks.proxy import TimmProxy
from proxyclip.vocabulary.templates import IMAGENET_TEMPLATES

NATIVE_PX = 112  # side of a crop, and of a window later: position embeddings are then never interpolated
LOGIT_SCALE = 40.0  # as in decoding, so that confidences mean what they say
OBJECT_WEIGHT = 3.0  # an object's pixels count more: backgrounds cover four fifths of a scene
CLIP_MODEL_CFG: dict[str, Any] = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": NATIVE_PX, "layers": 4, "width": 128, "head_width": 32, "patch_size": 8},
    # The width is small because the token embedding, 49408 x width, is most of the file.
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 48, "heads": 3, "layers": 2},
}
PROXY_MODEL_ARGS: dict[str, Any] = {
    "img_size": NATIVE_PX,
    "patch_size": 4,
    "embed_dim": 96,
    "depth": 4,
    "num_heads": 3,
    "num_classes": 0,
    "global_pool": "",
}
# Words outside the demo's world, as negatives. Every token that no prompt or caption holds has the embedding zero and
# keeps it, so these stand for all the others.
UNKNOWN_WORDS = ("person", "red car", "dining table lamp")


@dataclass(frozen=True)
class TrainConfig:
    """What to train, and how long. 2 cores: see the model card for the time it took."""

    folder: Path = Path("demo-weights")
    part: str = "both"  # clip, proxy, or both
    pool: Path | None = None  # keeps the drawn scenes in this .npz file, for the next run
    scenes: int = 3000
    clip_steps: int = 1300
    clip_batch: int = 64
    proxy_steps: int = 1300
    proxy_batch: int = 16
    lr: float = 1.5e-3
    seed: int = 0
    threads: int = 2
    device: str = "cpu"


@dataclass(frozen=True)
class Pool:
    """Drawn scenes: images (N, H, W, 3) and masks (N, H, W), uint8."""

    images: NDArray[np.uint8]
    masks: NDArray[np.uint8]


def train(config: TrainConfig) -> None:
    """Draw the scenes, train the parts asked for, write them as `config.folder`/clip and /proxy."""
    torch.set_num_threads(config.threads)
    pool = load_pool(config)
    if config.part in ("clip", "both"):
        train_clip(pool, config)
    if config.part in ("proxy", "both"):
        train_proxy(pool, config)


# ------------------------------------------------------------------------------------------------------------- data


def load_pool(config: TrainConfig) -> Pool:
    """Scenes of the first training seeds, drawn in worker processes, or read from `config.pool`."""
    if config.pool is not None and config.pool.exists():
        with np.load(config.pool) as kept:
            return Pool(kept["images"], kept["masks"])
    seeds = scenes.TRAIN_SEEDS[config.seed * config.scenes :][: config.scenes]
    with ProcessPoolExecutor(os.cpu_count()) as workers:
        drawn = list(workers.map(_draw_landscape, seeds, chunksize=32))
    pool = Pool(np.stack([image for image, _ in drawn]), np.stack([mask for _, mask in drawn]))
    if config.pool is not None:
        np.savez(config.pool, images=pool.images, masks=pool.masks)
    return pool


def _draw_landscape(seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    scene = scenes.draw_scene(seed, (240, 320))
    return scene.image, scene.mask


def crops(pool: Pool, batch: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless batches of crops, resized by 0.7 to 1.4, mirrored, brighter or darker.

    Pixels (B, 3, 112, 112) in [0, 1] and masks (B, 112, 112) int64.
    """

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator))

    count, height, width = pool.masks.shape
    while True:
        pixels, masks = [], []
        for index in torch.randint(count, (batch,), generator=generator).tolist():
            side = round(uniform(80, 160))
            top, left = int(uniform(0, height - side + 1)), int(uniform(0, width - side + 1))
            cut = (index, slice(top, top + side), slice(left, left + side))
            image = torch.from_numpy(pool.images[cut]).permute(2, 0, 1)[None].float() / 255
            mask = torch.from_numpy(pool.masks[cut])[None, None].float()
            size, smooth = (NATIVE_PX, NATIVE_PX), uniform(0, 1) < 0.5
            image = F.interpolate(image, size, mode="bilinear", align_corners=False, antialias=smooth)[0]
            image = (image - 0.5) * uniform(0.85, 1.15) + 0.5 + uniform(-0.06, 0.06)
            mask = F.interpolate(mask, size, mode="nearest-exact")[0, 0]
            if uniform(0, 1) < 0.5:
                image, mask = image.flip(-1), mask.flip(-1)
            pixels.append(image)
            masks.append(mask)
        yield torch.stack(pixels).clamp(0, 1), torch.stack(masks).long()


def patch_shares(masks: Tensor, patch: int) -> Tensor:
    """Share of each class in each patch: masks (B, H, W) to (B, N, K), summing to 1."""
    classes = len(scenes.CLASSES)
    cells = masks.unfold(1, patch, patch).unfold(2, patch, patch).flatten(3).flatten(1, 2)  # (B, N, patch^2)
    batch, num_patches, area = cells.shape
    first = torch.arange(batch * num_patches).view(batch, num_patches, 1) * classes
    counts = torch.bincount((cells + first).flatten(), minlength=batch * num_patches * classes)
    return counts.view(batch, num_patches, classes).float() / area


def caption(mask: Tensor) -> str:
    """What a crop shows, classes under 2 % of it left out."""
    seen = torch.bincount(mask.flatten(), minlength=len(scenes.CLASSES)) > 0.02 * mask.numel()
    names = [name for name, there in zip(scenes.CLASSES, seen.tolist(), strict=True) if there]
    backgrounds = [name for name in names if name in scenes.BACKGROUNDS]
    return scenes.describe(backgrounds, [name for name in names if name in scenes.OBJECTS])


# ------------------------------------------------------------------------------------------------------------- CLIP


def queries(name: str) -> tuple[str, ...]:
    """A class's name and synonyms."""
    return (name, *scenes.SYNONYMS.get(name, ()))


def train_clip(pool: Pool, config: TrainConfig) -> None:
    """Train the small CLIP; writes open_clip's layout to `config.folder`/clip."""
    torch.manual_seed(config.seed)
    generator = torch.Generator().manual_seed(config.seed + 1)
    encoder = ClipEncoder(open_clip.model.CLIP(**CLIP_MODEL_CFG)).to(config.device)
    model: Any = encoder.model.train().requires_grad_(True)
    _forget_unused_tokens(model, encoder)
    model.logit_scale.requires_grad_(False).fill_(math.log(LOGIT_SCALE))
    weights = _class_weights(config.device)
    patch = CLIP_MODEL_CFG["vision_cfg"]["patch_size"]

    def loss(pixels: Tensor, masks: Tensor) -> Tensor:
        captions = [caption(mask) for mask in masks]
        prompts = [_prompt(queries(name), generator) for name in scenes.CLASSES]
        prompts += [_prompt((word,), generator) for word in UNKNOWN_WORDS]
        text = F.normalize(model.encode_text(encoder.tokenizer(prompts + captions).to(config.device)).float(), dim=-1)
        tokens, grid_hw = encoder.trunk(_normalised(pixels, encoder.mean, encoder.std))
        dense = encoder.project(encoder.values(tokens, grid_hw)).float()  # (B, N, E)
        log_p = (LOGIT_SCALE * dense @ text[: len(prompts)].T).log_softmax(-1)[..., : len(scenes.CLASSES)]
        shares = patch_shares(masks, patch).to(config.device) * weights
        per_patch = -(shares * log_p).sum() / shares.sum()

        visual = model.visual
        cls = visual.ln_post(visual.transformer.resblocks[-1](tokens)[:, 0]) @ visual.proj
        logits = LOGIT_SCALE * F.normalize(cls.float(), dim=-1) @ text[len(prompts) :].T  # (B, B)
        same = torch.tensor([[a == b for b in captions] for a in captions], device=config.device).float()
        target = same / same.sum(1, keepdim=True)  # crops with the same caption are no negatives
        whole = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        return per_patch + 0.1 * whole

    batches = crops(pool, config.clip_batch, generator)
    _optimise("clip", model, loss, batches, config.clip_steps, config)
    preprocess = {"mean": list(encoder.mean), "std": list(encoder.std)}
    cfg = {"model_cfg": CLIP_MODEL_CFG, "preprocess_cfg": preprocess}
    _save(model, config.folder / "clip", "open_clip_model.safetensors", "open_clip_config.json", cfg)


def _forget_unused_tokens(model: Any, encoder: ClipEncoder) -> None:
    """Set the embedding of every token that training never shows to zero, and keep it there."""
    fillings = [query for name in scenes.CLASSES for query in queries(name)]
    shown = [t.format("") for t in IMAGENET_TEMPLATES] + fillings + [scenes.describe(fillings, fillings)]
    known = torch.zeros(model.vocab_size, 1, device=model.token_embedding.weight.device)
    known[encoder.tokenizer(shown).unique()] = 1
    for text in shown:  # long captions are cut at the context length; take them word by word too
        known[encoder.tokenizer(text.replace(",", " , ").split() or [""]).unique()] = 1
    weight = model.token_embedding.weight
    weight.data.mul_(known)
    weight.register_hook(lambda gradient: gradient * known)


def _prompt(names: tuple[str, ...], generator: torch.Generator) -> str:
    """One of the names, bare (1 in 8) or in one of the 80 templates."""
    name = names[int(torch.randint(len(names), (), generator=generator))]
    template = IMAGENET_TEMPLATES[int(torch.randint(len(IMAGENET_TEMPLATES), (), generator=generator))]
    return name if float(torch.rand((), generator=generator)) < 0.125 else template.format(name)


# ------------------------------------------------------------------------------------------------------------ proxy


def train_proxy(pool: Pool, config: TrainConfig) -> None:
    """Train the proxy; writes model.safetensors and config.json to `config.folder`/proxy."""
    torch.manual_seed(config.seed)
    generator = torch.Generator().manual_seed(config.seed + 2)
    proxy = TimmProxy(VisionTransformer(**PROXY_MODEL_ARGS)).to(config.device)
    model = proxy.model.train().requires_grad_(True)
    weights = _class_weights(config.device)
    patch = PROXY_MODEL_ARGS["patch_size"]
    nearness = _nearness(NATIVE_PX // patch).to(config.device)

    def loss(pixels: Tensor, masks: Tensor) -> Tensor:
        features, _ = proxy(_normalised(pixels, proxy.mean, proxy.std))
        unit = F.normalize(features.float(), dim=-1)
        shares = patch_shares(masks, patch).to(config.device)
        return grouping_loss(unit @ unit.mT, shares @ shares.mT, nearness, shares @ weights)

    batches = crops(pool, config.proxy_batch, generator)
    _optimise("proxy", model, loss, batches, config.proxy_steps, config)
    cfg = {"model_args": PROXY_MODEL_ARGS, "positions": "antialias"}
    _save(model, config.folder / "proxy", "model.safetensors", "config.json", cfg)


def grouping_loss(similarity: Tensor, same: Tensor, nearness: Tensor, weight: Tensor) -> Tensor:
    """Similarity 0.5 to 1 within a class, falling with distance; below -0.1 between classes.

    similarity, same: (B, N, N), cosine and the probability that two patches show one class. nearness: (N, N) in 0..1.
    weight: (B, N), of each patch. Were all patches of a class equally similar, the mean similarity of a nearly uniform
    window would exceed 1/beta and proxy attention would keep nothing but each patch itself.
    """
    within = same * (similarity - 0.5 - 0.5 * nearness).square()
    between = (1 - same) * (similarity + 0.1).relu().square()
    rows = within.sum(-1) / same.sum(-1) + between.sum(-1) / (1 - same).sum(-1).clamp(min=8)
    return (weight * rows).sum() / weight.sum()


def _nearness(side: int, reach: float = 4.0) -> Tensor:
    """exp(-d^2 / (2 reach^2)) of the distance d between patches of a grid: (side^2, side^2)."""
    places = torch.tensor(list(itertools.product(range(side), range(side))), dtype=torch.float32)
    return torch.exp(-torch.cdist(places, places).square() / (2 * reach**2))


# ------------------------------------------------------------------------------------------------------------- both


def _class_weights(device: str) -> Tensor:
    return torch.tensor(
        [1.0 if name in scenes.BACKGROUNDS else OBJECT_WEIGHT for name in scenes.CLASSES], device=device
    )


def _normalised(pixels: Tensor, mean: Iterable[float], std: Iterable[float]) -> Tensor:
    mean_, std_ = (torch.tensor(tuple(values)).view(1, 3, 1, 1) for values in (mean, std))
    return (pixels - mean_.to(pixels)) / std_.to(pixels)


def _optimise(
    what: str,
    model: nn.Module,
    loss: Callable[[Tensor, Tensor], Tensor],
    batches: Iterator[tuple[Tensor, Tensor]],
    steps: int,
    config: TrainConfig,
) -> None:
    """AdamW in bfloat16 autocast, one cycle: 100 steps of warm-up, then a cosine down to zero."""
    trained = [p for p in model.parameters() if p.requires_grad]
    matrices, rest = [p for p in trained if p.ndim > 1], [p for p in trained if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": rest, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min(1, (step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * step / steps))
    )
    started, recent = time.monotonic(), 0.0
    for step, (pixels, masks) in enumerate(itertools.islice(batches, steps), 1):
        with torch.autocast(config.device.split(":")[0], torch.bfloat16):
            value = loss(pixels.to(config.device), masks)
        optimiser.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        schedule.step()
        recent += float(value.detach())
        if step % 50 == 0:
            print(f"{what} {step}/{steps} loss {recent / 50:.3f} {time.monotonic() - started:.0f} s", flush=True)
            recent = 0.0


def _save(model: nn.Module, folder: Path, weights: str, config: str, architecture: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: value.half().contiguous().cpu() for name, value in model.state_dict().items()}, folder / weights)
    (folder / config).write_text(json.dumps(architecture, indent=2) + "\n")
