"""`Predictor`, which detects objects in images of any form, and `predict`, which makes one for a single call.

Letters: h w original image size, n detections of one image.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args, overload

import torch
from attrs import define

from det_core.data.bad_samples import BadImage
from det_core.engine.checkpoint import load_detector, read_header, weights_file
from det_core.engine.column_batches import found_columns, images_of
from det_core.engine.distributed import choose_device
from det_core.engine.image_inputs import ALLOWED, Image, Order, is_image, to_sample
from det_core.engine.predict import PRECISIONS, check_choice
from det_core.engine.prepare_inference import for_inference
from det_core.engine.prepared_images import Preparation, PreparedImage, detect
from det_core.engine.test_time_augmentation import Augmentation
from det_core.engine.tiling import Tiling
from det_core.errors import DetError, first_few, nearest
from det_core.model.detector import Detector
from det_core.recipe import Recipe
from det_core.settings import show
from det_core.specs import RGB, PixelFormat, Runtime
from det_core.structures import Classes, Detections

if TYPE_CHECKING:
    from numpy.typing import NDArray

T = TypeVar("T", bound=Image)
Columns = Mapping[str, "NDArray[Any]"]


@define(eq=False)
class _Ready:
    """What a predictor works with, once its checkpoint is loaded.

    detector: None if the checkpoint is an exported file. run: to the detections of images that are detected at once.
    labels: of the classes to keep, or None for all.
    """

    detector: Detector | None
    preparation: Preparation
    run: Callable[[Sequence[PreparedImage]], list[Detections]]
    classes: Classes
    pad_divisor: int
    pixels: PixelFormat
    labels: frozenset[int] | None


class Predictor:
    """Finds objects in images. Made once per process, called with one image or many.

    A predictor can be pickled, and costs little in transit: the copy loads the checkpoint again when it is first used.
    Several threads may call one predictor at once; the transforms of their images take turns.

    Args:
        checkpoint: a run folder (its best checkpoint), a checkpoint, a `.safetensors` file, or the address of one such
            as `hf://OWNER/NAME`; a file that `det-core export` wrote (`.onnx`, `.pt2`), whose precision, views and
            recipe are fixed; or a detector, of which a copy made by `for_inference` is used.
        device: `cpu`, `cuda`, `cuda:1`, `mps`; by default a GPU if there is one. A detector stays on its device.
        precision: `fp32`, `bf16` or `fp16`.
        batch_size: images, and tiles of an image, that are detected at once if they are padded to one size; results are
            those of one image at a time.
        order: the channels of tensors and arrays: `rgb`, or `bgr` as OpenCV reads them.
        augmentation: views of each image whose detections are merged; by default one view.
        tiling: the tiles of images that are larger than one; by default no image is divided.
        classes: names of the classes to keep; by default all.
        column: in batches of columns the one with the images; by default the first of `image`, `bytes` and `path`.
        recipe: the checkpoint's recipe with other test settings (thresholds, sizes); by default the checkpoint's.
        runtime: of an exported `.onnx` file: `onnxruntime`, or `openvino` on the CPU.
        fold: whether a detector is prepared by `for_inference`; otherwise it is used as it is, so that later changes of
            its weights count.

    Raises:
        CheckpointError: if the checkpoint cannot be loaded.
        DetError: for an option that is not allowed, or a class that the detector does not have.
    """

    def __init__(
        self,
        checkpoint: str | Path | Detector,
        device: str | None = None,
        precision: str = "fp32",
        batch_size: int = 1,
        *,
        order: Order = "rgb",
        augmentation: Augmentation | None = None,
        tiling: Tiling | None = None,
        classes: Sequence[str] | None = None,
        column: str | None = None,
        recipe: Recipe | None = None,
        runtime: Runtime = "onnxruntime",
        fold: bool = True,
    ) -> None:
        if type(batch_size) is not int or batch_size < 1:
            raise DetError(f"batch_size: found {show(batch_size)}, expected a whole number of at least 1")
        check_choice("order", order, get_args(Order))
        check_choice("precision", precision, PRECISIONS)
        if isinstance(classes, str):
            raise DetError(f"classes: found {show(classes)}, expected a list of names")
        if isinstance(checkpoint, Detector) and (device, recipe) != (None, None):
            raise DetError("device and recipe are options for checkpoints; a detector has its own (see Detector.to)")
        if _is_exported(checkpoint) and (precision, augmentation, tiling, recipe) != ("fp32", None, None, None):
            raise DetError(
                f"{checkpoint}: precision, augmentation, tiling and recipe are options for checkpoints; this is an "
                "exported detector, whose settings are fixed; remove them, or export the checkpoint again with others"
            )
        if not _is_exported(checkpoint) and runtime != "onnxruntime":
            raise DetError(f"runtime: found {show(runtime)}, an option for exported .onnx files; remove it")
        self.runtime = runtime
        self.checkpoint, self.device, self.precision, self.batch_size = checkpoint, device, precision, batch_size
        self.order, self.augmentation, self.tiling, self.recipe = order, augmentation, tiling, recipe
        self.chosen = None if classes is None else tuple(classes)
        self.column, self.fold = column, fold
        self._ready: _Ready | None = None
        self._loading = threading.Lock()
        self._load()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_ready", "_loading")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _ready=None, _loading=threading.Lock())

    @property
    def detector(self) -> Detector:
        """The detector that is used, in evaluation mode; DetError if it is an exported file."""
        detector = self._load().detector
        if detector is None:
            raise DetError(f"{self.checkpoint}: an exported file has no modules; load the checkpoint it was made from")
        return detector

    @property
    def classes(self) -> Classes:
        """The classes of the detections' labels."""
        return self._load().classes

    @property
    def pad_divisor(self) -> int:
        """Sides of the padded network input are multiples of it."""
        return self._load().pad_divisor

    @property
    def pixels(self) -> PixelFormat:
        """The format of the images that the detector takes, which files are read in."""
        return self._load().pixels

    @property
    def preparation(self) -> Preparation:
        """How images are transformed before they are detected, for loader processes."""
        return self._load().preparation

    @overload
    def __call__(self, images: Image) -> Detections: ...
    @overload
    def __call__(self, images: list[T] | tuple[T, ...]) -> list[Detections]: ...
    @overload
    def __call__(self, images: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]: ...

    def __call__(
        self, images: Image | Sequence[Image] | dict[str, NDArray[Any]]
    ) -> Detections | list[Detections] | dict[str, NDArray[Any]]:
        """Detections of an image, or of each of several, best first, in pixels of the original image, on the CPU.

        Args:
            images: one image, which gives one result, or a sequence of them, which gives a list: files, the bytes of
                files, (3, h, w) uint8 tensors, (h, w, 3) uint8 arrays, PIL images, or samples of a data set; with as
                many channels as the detector takes, and uint16 or float32 for one of `bits: 16`. A detector without a
                proposal head needs samples with proposals. Or a batch of columns, as Ray Data, Spark and Daft pass
                them; see `det_core.engine.column_batches`.

        Raises:
            DataError: for a file, or bytes, that cannot be read.
            DetError: for an image of another type, shape or dtype, or if a detector without a proposal head gets no
                proposals.
        """
        if isinstance(images, Mapping):
            return self._columns(images)
        if is_image(images):
            return self._detect([images])[0]
        if not isinstance(images, Sequence) or isinstance(images, (str, bytes)):
            found = f"{show(images)} ({type(images).__name__})"
            raise DetError(f"images: found {found}, expected {ALLOWED}, a list of them, or a dict of columns")
        return [
            found
            for start in range(0, len(images), self.batch_size)
            for found in self._detect(images[start : start + self.batch_size])
        ]

    def detect(self, images: Sequence[PreparedImage]) -> list[Detections]:
        """The detections of images that `preparation` has transformed; they are detected at once."""
        ready = self._load()
        found = ready.run(images)
        return found if ready.labels is None else [_only(d, ready.labels) for d in found]

    def warm_up(self, sizes: Sequence[tuple[int, int]]) -> None:
        """Detect on black images of these (height, width), in full batches, so that later calls take no longer.

        Operators are compiled, weights are packed and memory is taken on the first calls.

        Raises:
            DetError: for a size that is none.
        """
        for size in sizes:
            if len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
                raise DetError(f"sizes: found {show(size)}, expected (height, width) in pixels")
            dtype = torch.uint8 if self.pixels.bits == 8 else torch.float32
            self([torch.zeros(self.pixels.channels, *size, dtype=dtype)] * self.batch_size)

    def _detect(self, images: Sequence[Image]) -> list[Detections]:
        preparation, pixels = self.preparation, self.pixels
        return self.detect([preparation(to_sample(image, self.order, pixels)) for image in images])

    def _columns(self, columns: Columns) -> dict[str, NDArray[Any]]:
        """The columns without the images' own, and those of what was found; a bad image has its reason in `error`."""
        name, images = images_of(columns, self.column)
        preparation, pixels = self.preparation, self.pixels
        prepared, errors = list[PreparedImage](), list[str]()
        for image in images:
            try:
                prepared.append(preparation(to_sample(image, self.order, pixels)))
            except BadImage as error:
                errors.append(error.sample.what)
            else:
                errors.append("")
        size = self.batch_size
        found = [d for start in range(0, len(prepared), size) for d in self.detect(prepared[start : start + size])]
        return found_columns(columns, name, iter(found), errors, self.classes)

    def _load(self) -> _Ready:
        """Load the checkpoint, once."""
        with self._loading:
            if self._ready is None:
                self._ready = self._made()
            return self._ready

    def _made(self) -> _Ready:
        if _is_exported(self.checkpoint):
            return self._exported(Path(str(self.checkpoint)))
        if isinstance(self.checkpoint, Detector):
            detector = for_inference(self.checkpoint) if self.fold else self.checkpoint.eval()
        else:
            file = weights_file(self.checkpoint)
            recipe = self.recipe or read_header(file).recipe
            detector = for_inference(load_detector(file, choose_device(self.device), recipe=recipe))
        preparation = Preparation.of(detector.test_transforms, self.augmentation, self.tiling)
        classes, preprocess = detector.found_classes, detector.preprocess.config
        pixels, divisor = preprocess.pixels(), preprocess.pad_divisor
        if self.order == "bgr" and pixels.channels != RGB.channels:
            raise DetError(f"order: found 'bgr', but the detector takes {pixels}; leave it out")
        for transform in detector.test_transforms:
            if problem := transform.refusal(pixels):
                message = f"test transform {transform.type!r} {problem}"
                raise DetError(f"{message}; the detector takes {pixels}; set `test_transforms` of the detector")
        run = partial(detect, detector, preparation=preparation, precision=self.precision, batch_size=self.batch_size)
        return _Ready(detector, preparation, run, classes, divisor, pixels, _labels(self.chosen, classes))

    def _exported(self, file: Path) -> _Ready:
        from det_core.export.load_exported import load_exported

        exported = load_exported(file, choose_device(self.device), runtime=self.runtime)
        preparation = Preparation.of(exported.header.transforms, None, None)

        def run(images: Sequence[PreparedImage]) -> list[Detections]:
            return exported.detect([image.views[0] for image in images])

        labels = _labels(self.chosen, exported.classes)
        return _Ready(None, preparation, run, exported.classes, exported.header.pad_divisor, RGB, labels)


def _is_exported(checkpoint: str | Path | Detector) -> bool:
    from det_core.export.load_exported import is_exported

    return not isinstance(checkpoint, Detector) and is_exported(checkpoint)


def _labels(names: Sequence[str] | None, classes: Classes) -> frozenset[int] | None:
    """The labels of class names; None for all."""
    if names is None:
        return None
    unknown = [name for name in names if name not in classes.names]
    if unknown:
        hint = nearest(str(unknown[0]), classes.names) or f"; the detector has {first_few(classes.names, 20)}"
        raise DetError(f"classes: the detector has no class {show(unknown[0])}{hint}")
    return frozenset(label for label, name in enumerate(classes.names) if name in names)


def _only(found: Detections, labels: frozenset[int]) -> Detections:
    """The detections of these labels."""
    return found[torch.tensor([label in labels for label in found.labels.tolist()], dtype=torch.bool)]


@overload
def predict(
    detector: Detector,
    images: Image,
    *,
    batch_size: int = 1,
    precision: str = "fp32",
    augmentation: Augmentation | None = None,
    order: Order = "rgb",
    tiling: Tiling | None = None,
) -> Detections: ...


@overload
def predict(
    detector: Detector,
    images: list[T] | tuple[T, ...],
    *,
    batch_size: int = 1,
    precision: str = "fp32",
    augmentation: Augmentation | None = None,
    order: Order = "rgb",
    tiling: Tiling | None = None,
) -> list[Detections]: ...


def predict(
    detector: Detector,
    images: Image | Sequence[Image],
    *,
    batch_size: int = 1,
    precision: str = "fp32",
    augmentation: Augmentation | None = None,
    order: Order = "rgb",
    tiling: Tiling | None = None,
) -> Detections | list[Detections]:
    """Detections of an image, or of each of several, best first, in pixels of the original image, on the CPU.

    The detector is put into evaluation mode and otherwise used as it is; for many calls, a `Predictor` is faster.

    Args:
        detector: stays on its device.
        images: as of `Predictor`: one image (h, w), which gives one result, or a sequence of them.
        batch_size, precision, augmentation, order, tiling: as of `Predictor`.

    Raises:
        DataError: for a file, or bytes, that cannot be read.
        DetError: for an image of another type, shape or dtype, an option that is not allowed, or if a detector without
            a proposal head gets no proposals.
    """
    predictor = Predictor(
        detector,
        batch_size=batch_size,
        precision=precision,
        augmentation=augmentation,
        order=order,
        tiling=tiling,
        fold=False,
    )
    return predictor(images)  # type: ignore[arg-type]
