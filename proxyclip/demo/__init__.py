"""What runs anywhere? Scenes that this project draws, and a small CLIP and proxy trained on them.

The weights are in this folder, so they load without a network. `MODEL_CARD.md` says what they know and how they were
trained; `jobs/train_demo.py` trains them again.
"""

from pathlib import Path

DEMO_FOLDER = Path(__file__).parent
CLIP_FOLDER = DEMO_FOLDER / "clip"  # for open_clip: f"local-dir:{CLIP_FOLDER}"
PROXY_FOLDER = DEMO_FOLDER / "proxy"  # config.json (arguments of timm's VisionTransformer) and model.safetensors
VOCABULARY_FILE = DEMO_FOLDER / "vocabulary.json"

__all__ = ["CLIP_FOLDER", "DEMO_FOLDER", "PROXY_FOLDER", "VOCABULARY_FILE"]
