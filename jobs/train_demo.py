"""Train the demo's CLIP and proxy from scratch on drawn scenes. MODEL_CARD.md says how long it takes.

python jobs/train_demo.py --folder demo-weights
"""

import time

import tyro

from proxyclip.demo.train import TrainConfig, train


def main() -> None:
    config = tyro.cli(TrainConfig, description=__doc__)
    started = time.monotonic()
    train(config)
    print(f"Trained in {time.monotonic() - started:.0f} s; the networks are in {config.folder}.")


if __name__ == "__main__":
    main()
