"""A tiny SAM 3 with seeded random weights, as a folder."""

from __future__ import annotations

from pathlib import Path

from tiny import randomise
from transformers import CLIPTextConfig, CLIPTokenizer, Sam3Config, Sam3Model, Sam3Processor
from transformers.models.sam3.configuration_sam3 import Sam3ViTConfig
from transformers.models.sam3.image_processing_sam3 import Sam3ImageProcessor

SIDE = 56  # pixels of the square that images are resized to
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def tiny_sam3_model(seed: int = 0) -> Sam3Model:
    """All parts of SAM 3, of the smallest size."""
    vit = Sam3ViTConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=SIDE,
        pretrain_image_size=SIDE,
        patch_size=14,
        window_size=2,
        global_attn_indexes=[1],
    )
    small = {"hidden_size": 32, "num_attention_heads": 2}
    layers = {**small, "num_layers": 1, "intermediate_size": 64, "dropout": 0.0}
    config = Sam3Config(
        vision_config={"backbone_config": vit.to_dict(), "fpn_hidden_size": 32},
        text_config=CLIPTextConfig(
            vocab_size=2 * len(_LETTERS) + 2,
            hidden_size=32,
            intermediate_size=64,
            projection_dim=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=32,
            hidden_act="gelu",
            bos_token_id=2 * len(_LETTERS),
            eos_token_id=2 * len(_LETTERS) + 1,
        ).to_dict(),
        geometry_encoder_config=layers,
        detr_encoder_config=layers,
        detr_decoder_config={**layers, "num_queries": 4},
        mask_decoder_config={**small, "dropout": 0.0},
    )
    model = Sam3Model(config).eval()
    randomise(model, seed)
    return model


def tiny_sam3_processor() -> Sam3Processor:
    """Images of SIDE pixels; a tokenizer that knows letters."""
    words = [*_LETTERS, *(f"{letter}</w>" for letter in _LETTERS), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab={word: index for index, word in enumerate(words)}, merges=[])
    size = {"height": SIDE, "width": SIDE}
    return Sam3Processor(Sam3ImageProcessor(size=size, mask_size={"height": 16, "width": 16}), tokenizer)


def save_tiny_sam3(folder: Path, seed: int = 0) -> Path:
    """The folder, as `hf download` would leave it."""
    tiny_sam3_model(seed).save_pretrained(folder)
    tiny_sam3_processor().save_pretrained(folder)
    return folder
