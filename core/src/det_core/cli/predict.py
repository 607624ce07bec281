"""`det-core predict`: detect objects in images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from det_core.cli.choose import augmentation, detection_options, tiling, tiling_options, with_limits
from det_core.cli.options import ALLOW_OUTSIDE, AMP, CHECKPOINT, DEVICE, ON_BAD_SAMPLE, TIMEOUT
from det_core.cli.output_files import check_outputs
from det_core.errors import DetError, counted
from det_core.specs import Runtime

if TYPE_CHECKING:
    from det_core.data.image_list import ImageList
    from det_core.engine.distributed import World
    from det_core.engine.prediction_folder import RunFacts
    from det_core.engine.prediction_run import Counts, RunOptions
    from det_core.engine.predictor import Predictor
    from det_core.engine.share import Share
    from det_core.recipe import Recipe

A_WEEK = 7 * 24 * 3600.0  # a rank that is done waits so long for the others
TELL_EVERY = 600.0  # seconds after which it says so

EXPORTED_WORKERS = 2  # of an exported file, which has no recipe
# Options that an exported file has settled.
FIXED = {
    "score_threshold": "--score-threshold",
    "max_detections": "--max-detections",
    "use_amp": "--amp",
    "flip": "--flip",
    "scales": "--scale",
    "tile": "--tile",
}
# Options that results depend on.
DECIDING = (
    *("score_threshold", "max_detections", "use_amp", "flip", "scales", "classes"),
    *("tile", "overlap", "merge", "video", "runtime"),
)


def _pictures(_: object, __: object, text: str) -> int | None:
    """The number of `--pictures`; None for all."""
    if text in ("none", "all"):
        return 0 if text == "none" else None
    if not text.isdecimal():
        raise click.BadParameter(f"found {text!r}, expected a number, none or all")
    return int(text)


@click.command(name="predict")
@CHECKPOINT
@click.argument("images", nargs=-1, required=True)
@click.option("--out", default="predictions", show_default=True, help="Folder for the results.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["jsonl", "coco"]),
    default="jsonl",
    show_default=True,
    help="coco: at the end also write predictions.json in COCO's results format, and images.json.",
)
@click.option(
    "--pictures",
    default="100",
    show_default=True,
    metavar="N|none|all",
    callback=_pictures,
    help="Draw the detections of the first N images, of none or of all.",
)
@click.option("--crops", is_flag=True, help="Also cut out each detection, as a picture in a folder of its class.")
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    help="Draw and cut out detections of at least this score; the JSON has all.",
)
@click.option("--classes", multiple=True, metavar="NAME", help="Keep only this class; may be repeated.")
@click.option("--resume", is_flag=True, help="Go on with the run in --out: no image is done twice.")
@click.option("--overwrite", is_flag=True, help="Replace the results of an earlier run in --out.")
@click.option("--share", metavar="K/N", help="Do only the K-th of N shares. Default: by torchrun or the SLURM array.")
@click.option("--video", is_flag=True, help="IMAGES are videos: write a JSON line a frame, and drawn videos.")
@click.option("--stride", type=click.IntRange(min=1), default=1, show_default=True, help="Of videos, every N-th frame.")
@click.option("--image-root", help="Folder of the images of COCO files. Default: the folder of the file.")
@ALLOW_OUTSIDE
@ON_BAD_SAMPLE
@click.option("--batch-size", type=click.IntRange(min=1), default=1, show_default=True)
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    help="Loader processes; 0: read in the main process. Default: the recipe's, and 0 for a few images.",
)
@click.option(
    "--runtime",
    type=click.Choice(get_args(Runtime)),
    help="What runs an exported .onnx file; openvino: on the CPU. Default: onnxruntime.",
)
@DEVICE
@AMP
@TIMEOUT
@tiling_options
@detection_options
def command(images: tuple[str, ...], out: str, share: str | None, **options: Any) -> None:
    """Detect objects in IMAGES: files, folders (with those below), glob patterns, text files (.txt) with a path a
    line, or COCO files (.json).

    Results are appended to predictions.jsonl as they are found: for each image its detections, or why it cannot be
    read. An image that cannot be read costs only its own result, and the exit status is 1. Ranks of torchrun, and tasks
    of a SLURM array, share the images, and each writes a file of its own.

    In the JSON, boxes are x1, y1, x2, y2 in pixels of the image, and masks are COCO's compressed RLE.
    """
    if options["resume"] and options["overwrite"]:
        raise DetError("found --resume and --overwrite: give one of them")
    from det_core.engine.share import chosen_share

    folder, own = Path(out), chosen_share(share)
    check_outputs("--out", [folder / "run.json"], [])
    listed = _listed(images, folder, options)
    from det_core.engine.distributed import gather, join, leave

    world = join(options["device"], options["timeout"], exchanges=A_WEEK, patience=TELL_EVERY, on_cpu=True)
    try:
        work = _Work(folder, listed, own, world, options)
        counts = gather(work.run(), world, "the end of the predictions")
        if world.main:
            work.finish(counts)
        _raise_if_bad(counts, folder, world.main, options["video"])
    finally:
        leave(world)


def _listed(images: tuple[str, ...], folder: Path, options: dict[str, Any]) -> ImageList:
    """The images of the command line, without the pictures that an earlier run left in a folder among them."""
    from det_core.data.image_list import list_images
    from det_core.engine.prediction_folder import RUN
    from det_core.reports.prediction_pictures import CROPS, PICTURES, VIDEOS, check_no_input_is_overwritten

    made = [folder / name for name in (PICTURES, CROPS, VIDEOS)] if (folder / RUN).is_file() else []
    listed = list_images(
        images,
        image_root=options["image_root"],
        allow_outside=options["allow_outside"],
        leave_out=made,
        videos=options["video"],
    )
    check_no_input_is_overwritten(folder, {os.path.dirname(listed.paths[i]) for i in range(len(listed))})
    return listed


def _check_fixed(options: dict[str, Any]) -> None:
    """Raise DetError for an option that an exported file has settled."""
    for name, flag in FIXED.items():
        if not any(options[name] is x for x in (None, False, ())):
            raise DetError(
                f"{flag}: {options['checkpoint']} is an exported detector, whose settings are fixed; remove the "
                "option, or export the checkpoint again with other settings"
            )


class _Work:
    """What one process does of a run."""

    def __init__(self, folder: Path, listed: ImageList, share: Share, world: World, options: dict[str, Any]) -> None:
        from det_core.engine.checkpoint import read_header, weights_file
        from det_core.engine.prediction_folder import model_name
        from det_core.export.load_exported import is_exported
        from det_core.reports.loggers import Terminal

        self.folder, self.listed, self.world, self.options = folder, listed, world, options
        self.share = share.among(world.rank, world.size)
        self.recipe: Recipe | None = None  # of an exported file
        if is_exported(options["checkpoint"]):
            _check_fixed(options)
            self.file = Path(options["checkpoint"])
            self.model = model_name(self.file)
        else:
            self.file = weights_file(options["checkpoint"])
            header = read_header(self.file)
            self.model = model_name(self.file, header)
            self.recipe = with_limits(header.recipe, options["score_threshold"], options["max_detections"])
        self.terminal = Terminal(quiet=not world.main)

    def run(self) -> Counts:
        """Detect on this process's share of the images."""
        from det_core.engine.prediction_folder import begin
        from det_core.engine.prediction_run import PredictionRun

        facts = self._facts()
        self.predictor = self._predictor()
        begin(self.folder, facts, self.share, resume=self.options["resume"], overwrite=self.options["overwrite"])
        if self.options["video"]:
            return self._videos(facts.model)
        run = PredictionRun(
            self.predictor, self.listed, self.share, self._run_options(), facts.model, lambda n, _: self._advance(n)
        )
        self.terminal.start("predicting", len(self.share.indices(len(self.listed))))
        try:
            return run.run()
        finally:
            self.terminal.stop()

    def _videos(self, model: str) -> Counts:
        """Detect on this process's share of the videos; those whose lines are there are done."""
        from det_core.engine.predict_video import predict_video
        from det_core.engine.prediction_run import Counts
        from det_core.reports.prediction_pictures import VIDEOS, inside

        counts = Counts()
        for index in self.share.indices(len(self.listed)):
            video = self.listed[index]
            lines, drawn = (inside(self.folder, f"{VIDEOS}/{video.name}{end}") for end in (".jsonl", ".mp4"))
            if self.options["resume"] and lines.exists():
                counts += Counts(images=1, before=1)
                continue
            done = predict_video(
                self.predictor,
                video.path,
                lines,
                drawn if self.options["pictures"] != 0 else None,
                model=model,
                stride=self.options["stride"],
                threshold=self.options["threshold"],
            )
            if done.error:
                click.echo(f"error: {video.path}: {done.error}", err=True)
                if self.options["on_bad_sample"] == "error":
                    raise DetError(f"{video.path}: {done.error}")
            self.terminal.say(
                f"{video.path}: {done.detections} detections in {counted(done.frames, 'frame')} -> {lines}"
            )
            counts += Counts(images=1, bad=int(bool(done.error)), detections=done.detections)
        return counts

    def finish(self, counts: Sequence[Counts]) -> None:
        """Say what was found, and write COCO's results once all shares are done."""
        if self.options["video"]:
            return
        from det_core.engine.prediction_folder import COCO, Progress, write_coco
        from det_core.engine.result_log import log_file
        from det_core.engine.share import Share

        total = sum(counts[1:], counts[0])
        before = f" ({total.before} of them done before)" if total.before else ""
        where = log_file(self.folder, self.share) if self.share.count == 1 else self.folder / "predictions-*.jsonl"
        self.terminal.say(f"{total.detections} detections in {counted(total.images, 'image')}{before} -> {where}")
        if self.options["form"] == "coco":
            left = len(Progress.read(self.folder, self.listed, Share()).remaining)
            if left:
                self.terminal.say(f"{counted(left, 'image')} of other shares are left; the last share writes {COCO}")
            else:
                write_coco(self.folder, self.listed, self.predictor.classes)
                self.terminal.say(f"COCO's results -> {self.folder / COCO}")

    def _advance(self, done: int) -> None:
        self.terminal.advance(done)

    def _facts(self) -> RunFacts:
        from det_core.engine.prediction_folder import RunFacts

        plain = {name: value for name in DECIDING if (value := self.options[name]) not in (None, (), False)}
        if self.options["video"]:
            plain["stride"] = self.options["stride"]
        settings = {name: list(v) if isinstance(v, tuple) else v for name, v in plain.items()}
        count = self.share.count
        images = (len(self.listed), self.listed.digest)
        return RunFacts(self.model, settings, images, count)

    def _predictor(self) -> Predictor:
        from det_core.engine.predictor import Predictor

        options = self.options
        return Predictor(
            self.file,
            str(self.world.device),
            "bf16" if options["use_amp"] else "fp32",
            options["batch_size"],
            augmentation=augmentation(self.recipe, options["scales"], options["flip"]) if self.recipe else None,
            tiling=tiling(options["tile"], options["overlap"], options["merge"]),
            classes=options["classes"] or None,
            recipe=self.recipe,
            runtime=options["runtime"] or "onnxruntime",
        )

    def _run_options(self) -> RunOptions:
        from det_core.engine.prediction_run import RunOptions

        return RunOptions(
            folder=self.folder,
            threshold=self.options["threshold"],
            pictures=self.options["pictures"],
            crops=self.options["crops"],
            stop_at_bad=self.options["on_bad_sample"] == "error",
            workers=self.options["workers"],
            default_workers=EXPORTED_WORKERS if self.recipe is None else self.recipe.data.workers,
            timeout=self.options["timeout"],
        )


def _raise_if_bad(counts: Sequence[Counts], folder: Path, main: bool, video: bool) -> None:
    """End with status 1, on all ranks, if images or videos cannot be read; the main rank says so."""
    total = sum(counts[1:], counts[0])
    if not total.bad:
        return
    if not main:
        raise click.exceptions.Exit(1)
    if video:
        raise DetError(
            f"{total.bad} of {counted(total.images, 'video')} cannot be read to the end; their last lines say why"
        )
    from det_core.engine.result_log import log_files

    names = ", ".join(str(file) for file in log_files(folder)[:3])
    say = "says" if len(log_files(folder)) == 1 else "say"
    raise DetError(f"{total.bad} of {counted(total.images, 'image')} cannot be read; {names} {say} why")
