"""Train the demo's two networks on drawn scenes. `jobs/train_demo.py` is the command.

CLIP learns two things. For each patch, the values of its last block (as MaskCLIP uses them) match the text embedding
of the class drawn there. For the whole crop, the image embedding matches the caption. The proxy learns that patches
of one class in a crop are similar, nearer ones more, and patches of two classes are not. It never sees CLIP or text.
"""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from proxyclip.demo.crops import NATIVE_PX, Pool, caption, crops, load_pool, patch_shares
from proxyclip.demo.scenes import BACKGROUNDS, CLASSES, SYNONYMS, TRAIN_SEEDS, describe
from proxyclip.models.networks.clip import ClipEncoder
from proxyclip.models.networks.proxy import TimmProxy
from proxyclip.vocabulary.templates import IMAGENET_TEMPLATES

LOGIT_SCALE = 40.0  # as in decoding, so that confidences are calibrated in the same way
OBJECT_WEIGHT = 3.0  # backgrounds cover four fifths of a scene, so pixels of objects count more
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
# Negatives: words for what no scene shows. Tokens that training never shows keep a zero embedding, so these few words
# are enough to represent all other words.
UNKNOWN_WORDS = ("person", "red car", "dining table lamp")


@dataclass(frozen=True)
class TrainConfig:
    """What to train and how long. The model card says how long it takes on 2 cores."""

    folder: Path = Path("demo-weights")
    """Where the networks are written."""
    part: str = "both"
    """clip, proxy or both."""
    pool: Path | None = None
    """An .npz file that keeps the drawn scenes for the next run."""
    scenes: int = 3000
    """How many scenes to draw."""
    clip_steps: int = 1300
    clip_batch: int = 64
    proxy_steps: int = 1300
    proxy_batch: int = 16
    lr: float = 1.5e-3
    seed: int = 0
    threads: int = 2
    device: str = "cpu"


def train(config: TrainConfig) -> None:
    """Draw the scenes, train the chosen parts, write them to `config.folder`/clip and /proxy."""
    torch.set_num_threads(config.threads)
    pool = load_pool(TRAIN_SEEDS[config.seed * config.scenes :][: config.scenes], config.pool)
    if config.part in ("clip", "both"):
        train_clip(pool, config)
    if config.part in ("proxy", "both"):
        train_proxy(pool, config)


def queries(name: str) -> tuple[str, ...]:
    """A class's name and synonyms."""
    return (name, *SYNONYMS.get(name, ()))


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
        prompts = [_prompt(queries(name), generator) for name in CLASSES]
        prompts += [_prompt((word,), generator) for word in UNKNOWN_WORDS]
        text = F.normalize(model.encode_text(encoder.tokenizer(prompts + captions).to(config.device)).float(), dim=-1)
        tokens, grid_hw = encoder.trunk(_normalised(pixels, encoder.mean, encoder.std))
        dense = encoder.project(encoder.values(tokens, grid_hw)).float()  # (B, N, E)
        log_p = (LOGIT_SCALE * dense @ text[: len(prompts)].T).log_softmax(-1)[..., : len(CLASSES)]
        shares = patch_shares(masks, patch).to(config.device) * weights
        per_patch = -(shares * log_p).sum() / shares.sum()

        visual = model.visual
        cls = visual.ln_post(visual.transformer.resblocks[-1](tokens)[:, 0]) @ visual.proj
        logits = LOGIT_SCALE * F.normalize(cls.float(), dim=-1) @ text[len(prompts) :].T  # (B, B)
        same = torch.tensor([[a == b for b in captions] for a in captions], device=config.device).float()
        target = same / same.sum(1, keepdim=True)  # crops with the same caption are not negatives of each other
        whole = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        return per_patch + 0.1 * whole

    batches = crops(pool, config.clip_batch, generator)
    _optimise("clip", model, loss, batches, config.clip_steps, config)
    preprocess = {"mean": list(encoder.mean), "std": list(encoder.std)}
    cfg = {"model_cfg": CLIP_MODEL_CFG, "preprocess_cfg": preprocess}
    _save(model, config.folder / "clip", "open_clip_model.safetensors", "open_clip_config.json", cfg)


def _forget_unused_tokens(model: Any, encoder: ClipEncoder) -> None:
    """Set the embeddings of all tokens that training never shows to zero, and keep them there."""
    fillings = [query for name in CLASSES for query in queries(name)]
    shown = [t.format("") for t in IMAGENET_TEMPLATES] + fillings + [describe(fillings, fillings)]
    known = torch.zeros(model.vocab_size, 1, device=model.token_embedding.weight.device)
    known[encoder.tokenizer(shown).unique()] = 1
    for text in shown:  # the tokenizer cuts long captions, so also take single words
        known[encoder.tokenizer(text.replace(",", " , ").split() or [""]).unique()] = 1
    weight = model.token_embedding.weight
    weight.data.mul_(known)
    weight.register_hook(lambda gradient: gradient * known)


def _prompt(names: tuple[str, ...], generator: torch.Generator) -> str:
    """One of the names, alone (1 time in 8) or in one of the 80 templates."""
    name = names[int(torch.randint(len(names), (), generator=generator))]
    template = IMAGENET_TEMPLATES[int(torch.randint(len(IMAGENET_TEMPLATES), (), generator=generator))]
    return name if float(torch.rand((), generator=generator)) < 0.125 else template.format(name)


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
    """Pull similarity to 0.5..1 within a class, higher for near patches, and below -0.1 between classes.

    similarity: (B, N, N) cosines. same: (B, N, N), the probability that two patches show one class. nearness: (N, N)
    in 0..1. weight: (B, N), of each patch. The distance matters: if all patches of a class were equally similar, a
    nearly uniform window would have a mean similarity above 1/beta, and proxy attention would keep only each patch
    itself.
    """
    within = same * (similarity - 0.5 - 0.5 * nearness).square()
    between = (1 - same) * (similarity + 0.1).relu().square()
    rows = within.sum(-1) / same.sum(-1) + between.sum(-1) / (1 - same).sum(-1).clamp(min=8)
    return (weight * rows).sum() / weight.sum()


def _nearness(side: int, reach: float = 4.0) -> Tensor:
    """(side^2, side^2): exp(-d^2 / (2 reach^2)) for the distance d between two patches of a grid."""
    places = torch.tensor(list(itertools.product(range(side), range(side))), dtype=torch.float32)
    return torch.exp(-torch.cdist(places, places).square() / (2 * reach**2))


def _class_weights(device: str) -> Tensor:
    return torch.tensor([1.0 if name in BACKGROUNDS else OBJECT_WEIGHT for name in CLASSES], device=device)


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
    """Train with AdamW in bfloat16 autocast: 100 steps of warm-up, then a cosine schedule down to zero."""
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
