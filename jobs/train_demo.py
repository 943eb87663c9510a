"""Train the demo's CLIP and proxy on drawn scenes, from nothing, on a laptop.

python jobs/train_demo.py --folder demo-weights
"""

import time

import tyro

from proxyclip.demo.train import TrainConfig, train


def main() -> None:
    config = tyro.cli(TrainConfig, description=__doc__)
    started = time.monotonic()
    train(config)
    print(f"{config.part} in {config.folder}, {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
