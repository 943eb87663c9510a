"""SAM 3 (2511.16719) through transformers: one text prompt per query, combined over a vocabulary.

A query's map is its semantic map times its presence: sigmoid(semantic logit) x sigmoid(presence logit), in [0, 1]. The
presence head says whether the image shows the concept at all; transformers' documentation multiplies the scores of
instances by it in the same way. A class has the maximum over its queries. The class with the largest value wins, and
that value is the confidence: the probability that the pixel shows this class, asked for by itself. The probabilities
of the classes of a pixel therefore need not sum to 1, and do not depend on the rest of the vocabulary.

The whole image is resized to a square, as SAM 3's own processor does; maps are resized to the image.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import Sam3Model, Sam3Processor
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.sam3.modeling_sam3 import Sam3VisionEncoderOutput

from proxyclip.models.decoding.decode import Decoded
from proxyclip.models.memory import BatchSize
from proxyclip.models.teachers.running import RunningLabels
from proxyclip.vocabulary.names import Vocabulary

# Prompts that go through the network together. On a CPU more are not faster, and the last bits would depend on it.
PROMPTS_AT_ONCE = {"cpu": 1, "cuda": 8}


@dataclass(frozen=True)
class Sam3Features:
    """An encoded image: the feature pyramid of the vision encoder, and the size of the labels."""

    pyramid: tuple[Tensor, ...]
    positions: tuple[Tensor, ...]
    image_hw: tuple[int, int]


@dataclass(frozen=True)
class _Prompts:
    """The queries of a vocabulary: tokens (Q, T, D), and which of them are not padding, (Q, T)."""

    tokens: Tensor
    mask: Tensor


class Sam3:
    """A `Teacher` with the networks of SAM 3.

    presence: multiply semantic maps by presence. prompts_at_once: halves when memory runs out.
    """

    def __init__(
        self,
        model: Sam3Model,
        processor: Sam3Processor,
        *,
        presence: bool = True,
        device: str | torch.device = "cpu",
        prompts_at_once: int | None = None,
    ) -> None:
        self.device = torch.device(device)
        self._model = model.to(self.device).eval()
        self._processor = processor
        self._presence = presence
        at_once = prompts_at_once or PROMPTS_AT_ONCE.get(self.device.type, PROMPTS_AT_ONCE["cuda"])
        self._prompts_at_once = BatchSize("prompts", at_once)
        self._embedded: tuple[Vocabulary, _Prompts] | None = None  # the last vocabulary

    @classmethod
    def from_folder(cls, folder: str | Path, *, dtype: torch.dtype = torch.float32, **kwargs: Any) -> Sam3:
        """Load a folder that `save_pretrained` wrote. `kwargs`: as in the constructor.

        Raises ValueError if the folder lacks weights of the network.
        """
        local: dict[str, Any] = {"local_files_only": True}
        model, loaded = Sam3Model.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, output_loading_info=True, **local
        )
        if missing := sorted(loaded["missing_keys"]):
            raise ValueError(
                f"{folder} lacks {len(missing)} tensors of SAM 3, among them {missing[0]}; give a folder of "
                "facebook/sam3, or one that Sam3Model.save_pretrained wrote."
            )
        return cls(model, Sam3Processor.from_pretrained(folder, **local), **kwargs)

    @torch.inference_mode()
    def encode(self, image: np.ndarray) -> Sam3Features:
        """Run the vision encoder: RGB uint8 (H, W, 3)."""
        resized = self._processor.image_processor(
            images=image, input_data_format="channels_last", device=self.device, return_tensors="pt"
        )
        pixels = resized["pixel_values"].to(self.device, self._model.dtype)
        vision = self._model.get_vision_features(pixels)
        return Sam3Features(
            tuple(vision.fpn_hidden_states), tuple(vision.fpn_position_encoding), (image.shape[0], image.shape[1])
        )

    @torch.inference_mode()
    def decode(self, encoded: Sam3Features, vocabulary: Vocabulary) -> Decoded:
        """Ask for every query. Memory does not grow with the vocabulary, but for the tokens: 32 KB per query.

        Raises `models.memory.OutOfMemory` if not even one prompt fits.
        """
        return self._prompts_at_once.fit(lambda size: self._decode(encoded, vocabulary, size))

    def _decode(self, encoded: Sam3Features, vocabulary: Vocabulary, at_once: int) -> Decoded:
        labels = RunningLabels(encoded.image_hw, self.device)
        maps = self._maps(encoded, self._prompts(vocabulary), at_once)
        for index, queries in enumerate(vocabulary.class_queries):
            scores = _resized(next(maps), encoded.image_hw)
            for _ in queries[1:]:
                torch.maximum(scores, _resized(next(maps), encoded.image_hw), out=scores)
            labels.add(index, scores)
        return labels.decoded()

    def _maps(self, encoded: Sam3Features, prompts: _Prompts, at_once: int) -> Iterator[Tensor]:
        """A map (h, w) for each query, in order. Each is the same whatever other queries go through the network."""
        for tokens, mask in zip(prompts.tokens.split(at_once), prompts.mask.split(at_once), strict=True):
            yield from self._ask(encoded, tokens, mask)

    def _ask(self, encoded: Sam3Features, tokens: Tensor, mask: Tensor) -> Tensor:
        """The maps of some queries, (N, h, w) float32 from 0 to 1."""
        pyramid, positions = (
            tuple(level.expand(len(tokens), -1, -1, -1) for level in levels)
            for levels in (encoded.pyramid, encoded.positions)
        )
        found = self._model(
            vision_embeds=Sam3VisionEncoderOutput(fpn_hidden_states=pyramid, fpn_position_encoding=positions),
            text_embeds=BaseModelOutputWithPooling(pooler_output=tokens),
            attention_mask=mask,
        )
        maps = found.semantic_seg[:, 0].float().sigmoid()
        if self._presence:
            maps = maps * found.presence_logits.float().sigmoid()[:, :, None]
        return maps

    def _prompts(self, vocabulary: Vocabulary) -> _Prompts:
        """The queries through the text encoder, kept for the next image. Queries that are too long are cut."""
        if self._embedded is None or self._embedded[0] != vocabulary:
            tokens, masks = [], []
            length = self._model.config.text_config.max_position_embeddings
            for query in vocabulary.queries:  # one by one: then its tokens do not depend on the other queries
                text = self._processor.tokenizer(
                    query, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
                ).to(self.device)
                tokens.append(self._model.get_text_features(text["input_ids"], text["attention_mask"]).pooler_output)
                masks.append(text["attention_mask"])
            self._embedded = vocabulary, _Prompts(torch.cat(tokens), torch.cat(masks))
        return self._embedded[1]


def _resized(scores: Tensor, image_hw: tuple[int, int]) -> Tensor:
    """A map at the size of the image. Probabilities are resized, not logits, as transformers' post-processing does."""
    return F.interpolate(scores[None, None], size=image_hw, mode="bilinear", align_corners=False)[0, 0].clamp_(0, 1)


def load(settings: Mapping[str, Any], files: Mapping[str, Path], *, device: torch.device, dtype: torch.dtype) -> Sam3:
    """The teacher that `recipes.teachers` names."""
    return Sam3.from_folder(files["config.json"].parent, dtype=dtype, device=device, presence=settings["presence"])
