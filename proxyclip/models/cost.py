"""The cost of an image in floating-point operations, counted on networks without weights."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from proxyclip.config import SegmenterConfig
from proxyclip.models.networks.build import clip_encoder, new_clip, new_proxy, proxy_encoder
from proxyclip.models.segmenter import Segmenter
from proxyclip.models.windows import plan_windows


def gflop_per_image(config: SegmenterConfig, image_hw: tuple[int, int] = (375, 500)) -> float:
    """Billions of floating-point operations to encode an image of `image_hw` pixels, without decoding.

    Counts matrix products, convolutions and attention; a multiplication with its addition counts as two.
    """
    plan = plan_windows(image_hw, config.windows)
    with torch.device("meta"), torch.inference_mode():
        clip = clip_encoder(new_clip(config.model), config.model)
        proxy = None
        if config.model.proxy is not None:
            proxy = proxy_encoder(new_proxy(config.model), config.model, config.windows.crop)
        segmenter = Segmenter(clip, proxy, config, device="meta")
        with FlopCounterMode(display=False) as counter:
            segmenter.encode_windows(torch.empty(1, 3, *plan.padded_hw))
    return plan.num_windows * counter.get_total_flops() / 1e9
