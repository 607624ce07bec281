"""Detect objects in a folder of images with Ray Data 2, and write Parquet files.

pip install "ray[data]"
python examples/ray_data.py CHECKPOINT IMAGES OUT [--workers 2] [--gpus 0]
"""

from __future__ import annotations

import argparse

from det_core import Predictor


def main() -> None:
    """Read, detect, write; each worker makes one `Predictor`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, text in (("checkpoint", "a run folder or a checkpoint"), ("images", "a folder"), ("out", "a folder")):
        parser.add_argument(name, help=text)
    parser.add_argument("--workers", type=int, default=2, help="processes that each load the checkpoint")
    parser.add_argument("--gpus", type=float, default=0, help="GPUs of each worker")
    options = parser.parse_args()

    import ray

    images = ray.data.read_binary_files(options.images, include_paths=True)
    found = images.map_batches(
        Predictor,
        fn_constructor_kwargs={"checkpoint": options.checkpoint, "batch_size": 8},
        concurrency=options.workers,
        num_gpus=options.gpus,
        batch_size=64,
    )
    found.write_parquet(options.out)
    print(f"{ray.data.read_parquet(options.out).count()} rows -> {options.out}")


if __name__ == "__main__":
    main()
