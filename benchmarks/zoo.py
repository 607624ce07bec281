"""Every recipe once: built, one training step, one inference. What fails, how many parameters, how long.

    python benchmarks/zoo.py [--find TEXT ...] [--device cpu] [--size 128 160] [--images 1] [--regions 32] [--json FILE]
    python benchmarks/zoo.py --device cuda [--rounds 5] [--json FILE]

Random weights, random images with ten objects. On the CPU the default is one small image (SSD has its own size) and few
regions per image, to see that all of the zoo works; its times tell models apart and no more. On a GPU it is two images
of 800 x 1333 with `--rounds` timed steps: peak memory and seconds per step stand beside the published ones, which were
measured on V100s.

A step fails where it raises, or where a loss or a gradient is not finite. Exit status 1 if any recipe fails. `--json`
is written after each recipe, with the published figures; `--spread` takes the recipes of all families in turn, so that
an end before the last costs no family all of its recipes.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from attrs import asdict, evolve, frozen
from peers import Inputs, make_inputs
from rich.console import Console
from torch import Tensor, nn

from det_core import Detector, Recipe, Targets, load_recipe
from det_core.data.data_config import ResizeConfig
from det_core.engine.detector_cost import class_count
from det_core.engine.parameter_groups import build_optimizer
from det_core.load import recipe_from_plain
from det_core.model.memory_layout import to_channels_last
from det_core.offers import RecipeEntry
from det_core.plugins import plugin_manager
from det_core.recipe import Published

PROPOSALS = 300  # of detectors that get them from elsewhere
SMALL, LARGE = (128, 160), (800, 1333)
FEW_REGIONS = 32


@frozen
class Result:
    """Of one recipe: millions of parameters, seconds, and the peak of memory in GB (NaN on a CPU)."""

    name: str
    parameters: float = float("nan")
    build_s: float = float("nan")
    train_s: float = float("nan")
    infer_s: float = float("nan")
    peak_gb: float = float("nan")
    failure: str = ""

    def line(self, published: Published | None) -> str:
        """As the terminal shows it."""
        if self.failure:
            return f"{self.name:44} FAILED: {self.failure}"
        shown = (
            f"{self.name:44} {self.parameters:7.1f} M {self.build_s:6.2f} s {self.train_s:7.3f} s {self.infer_s:7.3f} s"
        )
        if self.peak_gb != self.peak_gb:
            return shown
        gb, seconds = (_or_dash(published, key) for key in ("memory_gb", "train_s_per_iter"))
        return f"{shown} {self.peak_gb:6.2f} GB | published: {seconds} s per step, {gb} GB"


def _or_dash(published: Published | None, key: str) -> str:
    value = None if published is None else getattr(published, key)
    return "-" if value is None else f"{value:.2f}"


def input_size(recipe: Recipe, wanted: tuple[int, int]) -> tuple[int, int]:
    """(H, W): what is wanted, or the one size that a detector of fixed size has."""
    for transform in recipe.data.test_transforms:
        if isinstance(transform, ResizeConfig) and not transform.keep_ratio:
            width, height = transform.scales[0]
            return height, width
    return wanted


def images_of(recipe: Recipe, detector: Detector, wanted: int) -> int:
    """Images of a batch: as wanted, but two for batch norms that train on a map of one cell."""
    sizes = [t.scales[0] for t in recipe.data.test_transforms if isinstance(t, ResizeConfig) and not t.keep_ratio]
    one_cell = any(recipe.detector.feature_spec().strides[-1] >= max(size) for size in sizes)
    trains = any(isinstance(m, nn.BatchNorm2d) and m.training for m in detector.train().modules())
    return max(wanted, 2) if one_cell and trains else wanted


def with_few_regions(recipe: Recipe, limit: int) -> Recipe:
    """The recipe with at most so many proposals of an image, and as many regions that a second stage learns from."""
    plain = recipe.to_plain()

    def cut(node: Any, keys: tuple[str, ...]) -> None:
        for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
            if key in keys and isinstance(value, int):
                node[key] = min(value, limit)
            else:
                cut(value, keys)

    cut(plain["detector"]["dense_head"], ("before_nms", "after_nms"))
    cut(plain["detector"]["roi_head"], ("count",))
    return recipe_from_plain(plain)


def inputs_of(recipe: Recipe, size: tuple[int, int], images: int, device: str, limit: int) -> Inputs:
    """Images and objects with all that the detector asks for."""
    classes = class_count(recipe)
    inputs = make_inputs(input_size(recipe, size), images, recipe.detector.preprocess.pad_divisor)
    targets = tuple(_targets(t, classes, recipe).to(device) for t in inputs.targets)
    batch = evolve(inputs.batch, images=inputs.batch.images.to(device))
    if recipe.detector.dense_head is None:
        height, width = batch.infos[0].size
        count = min(PROPOSALS, limit or PROPOSALS)
        corners = torch.rand(count, 2, 2).sort(1).values * torch.tensor([width, height])
        batch = evolve(batch, proposals=tuple(corners.flatten(1).to(device) for _ in range(images)))
    return Inputs(batch, targets)


def _targets(targets: Targets, classes: int, recipe: Recipe) -> Targets:
    semantic: Tensor | None = None
    if recipe.detector.needs_semantic:
        assert targets.masks is not None
        semantic = targets.masks.amax(0)  # 1 where any object is
    return evolve(targets, labels=targets.labels % classes, semantic=semantic)


def steps(detector: Detector, recipe: Recipe, inputs: Inputs, rounds: int) -> float:
    """Least seconds of a training step; ValueError for a loss or gradient that is not finite."""
    optimizer = build_optimizer(evolve(recipe.optimizer, lr=1e-9), detector)
    detector.train()
    best = float("inf")
    for _ in range(rounds):
        started = time.perf_counter()
        terms = detector.losses(inputs.batch, inputs.targets)
        values = {name: term.value() for name, term in terms.items()}
        sum(values.values()).backward()
        optimizer.step()
        _wait(inputs)
        best = min(best, time.perf_counter() - started)
        for name, value in values.items():
            if not bool(value.isfinite()):
                raise ValueError(f"loss {name} is {value.item()}")
        for name, parameter in detector.named_parameters():
            if parameter.grad is not None and not bool(parameter.grad.isfinite().all()):
                raise ValueError(f"the gradient of {name} is not finite")
            if parameter.requires_grad and parameter.grad is None:
                raise ValueError(f"{name} trains and gets no gradient")
        optimizer.zero_grad()
    return best


def inferences(detector: Detector, inputs: Inputs, rounds: int) -> float:
    """Least seconds of an inference of the batch."""
    detector.eval()
    best = float("inf")
    for _ in range(rounds):
        started = time.perf_counter()
        found = detector.predict(inputs.batch)
        _wait(inputs)
        best = min(best, time.perf_counter() - started)
        if len(found) != len(inputs.batch) or not all(bool(f.boxes.isfinite().all()) for f in found):
            raise ValueError("detections are not finite, or not one set per image")
    return best


def _wait(inputs: Inputs) -> None:
    if inputs.batch.images.is_cuda:
        torch.cuda.synchronize()


def run(entry: RecipeEntry, options: argparse.Namespace) -> Result:
    """Build, train and infer; what is raised becomes the failure."""
    torch.manual_seed(0)
    try:
        recipe = load_recipe(entry.name)
        if options.regions:
            recipe = with_few_regions(recipe, options.regions)
        started = time.perf_counter()
        detector = recipe.detector.build(num_classes=class_count(recipe)).to(options.device)
        built = time.perf_counter() - started
        to_channels_last(detector)  # as training and `load_detector` do
        images = images_of(recipe, detector, options.images)
        inputs = inputs_of(recipe, tuple(options.size), images, options.device, options.regions)
        if options.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        train = steps(detector, recipe, inputs, options.rounds)
        peak = torch.cuda.max_memory_allocated() / 1e9 if options.device == "cuda" else float("nan")
        infer = inferences(detector, inputs, options.rounds)
    except Exception as error:  # whatever is raised is this recipe's result, the next ones run
        return Result(entry.name, failure=f"{type(error).__name__}: {error}".splitlines()[0])
    count = sum(p.numel() for p in detector.parameters())
    return Result(entry.name, count / 1e6, built, train, infer, peak)


def in_turn(entries: list[RecipeEntry]) -> list[RecipeEntry]:
    """The first recipe of every family, then the second of each, and so on."""
    families: dict[str, list[RecipeEntry]] = {}
    for entry in entries:
        families.setdefault(entry.name.partition("/")[0], []).append(entry)
    return [entry for turn in zip_longest(*families.values()) for entry in turn if entry is not None]


def published_figures(published: Published | None) -> dict[str, float | None]:
    """Seconds per step and GB as published."""
    return {
        "published_train_s": None if published is None else published.train_s_per_iter,
        "published_peak_gb": None if published is None else published.memory_gb,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--find", nargs="+", default=[], metavar="TEXT", help="only names with all of these")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--size", nargs=2, type=int, metavar=("H", "W"), help="of each image")
    parser.add_argument("--images", type=int, help="of a batch")
    parser.add_argument("--regions", type=int, help="proposals, and regions to learn from, at most; 0 = the recipe's")
    parser.add_argument("--rounds", type=int, help="steps and inferences; the least time counts")
    parser.add_argument("--spread", action="store_true", help="the families' recipes in turn, not family by family")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results to this file")
    options = parser.parse_args()
    large = options.device == "cuda"
    options.size = options.size or (LARGE if large else SMALL)
    options.images = options.images or (2 if large else 1)
    options.regions = (0 if large else FEW_REGIONS) if options.regions is None else options.regions
    options.rounds = options.rounds or (5 if large else 1)
    # Recipes for weights of mmdet 0.x and 1.x compute the same; --find mmdet1 measures them.
    own = [e for e in plugin_manager().recipes().values() if e.weights_of != "mmdet1" or options.find]
    entries = [e for e in own if all(text in e.name for text in options.find)]
    if options.spread:
        entries = in_turn(entries)
    console = Console(width=200, highlight=False)
    console.print(
        f"{options.images} of {options.size[0]}x{options.size[1]}, {options.device}, torch {torch.__version__}\n"
        f"{'recipe':44} {'params':>9} {'build':>8} {'train':>9} {'infer':>9}"
    )
    results: list[Result] = []
    rows: list[dict[str, object]] = []
    for entry in entries:
        result = run(entry, options)
        results.append(result)
        rows.append({**asdict(result), **published_figures(entry.published)})
        if options.json is not None:
            options.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf8")
        console.print(result.line(entry.published), markup=False)
        gc.collect()
        if options.device == "cuda":
            torch.cuda.empty_cache()
    failures = sum(bool(r.failure) for r in results)
    console.print(f"{len(results)} recipes, {failures} failures")
    return int(failures > 0 or not results)


if __name__ == "__main__":
    raise SystemExit(main())
