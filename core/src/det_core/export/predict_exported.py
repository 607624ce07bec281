"""An exported detector in place of a checkpoint: a `Predictor` whose file ONNX Runtime or torch runs."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from det_core.engine.image_inputs import Order
from det_core.engine.predictor import Predictor
from det_core.engine.prepared_images import Preparation, PreparedImage
from det_core.errors import DetError, nearest
from det_core.export.load_exported import ONNX, PROGRAM, ExportedDetector, load_exported
from det_core.model.detector import Detector
from det_core.structures import Classes, Detections


def is_exported(checkpoint: str | Path) -> bool:
    """Whether `--checkpoint` names an exported file."""
    return Path(checkpoint).suffix in (ONNX, PROGRAM)


def exported_name(file: Path) -> str:
    """What tells the model of a result: the file's name and the start of its SHA-256."""
    with file.open("rb") as content:
        return f"{file.name} {hashlib.file_digest(content, 'sha256').hexdigest()[:12]}"


def check_fixed(checkpoint: str, options: Mapping[str, object]) -> None:
    """Raise DetError if one of these options of the command line is given, which would change the detector."""
    given = [name for name, value in options.items() if value]
    if given:
        raise DetError(
            f"{given[0]}: {checkpoint} is an exported detector, whose settings are fixed; remove the option, or export "
            "the checkpoint again with other settings"
        )


class ExportedPredictor(Predictor):
    """As `Predictor`, of a file that `det-core export` wrote; thresholds, precision and views of it are fixed.

    Raises:
        DetError: as `load_exported`, and for a class that the detector does not have.
    """

    def __init__(
        self,
        checkpoint: str | Path,
        device: str = "cpu",
        batch_size: int = 1,
        *,
        order: Order = "rgb",
        classes: Sequence[str] | None = None,
    ) -> None:
        self.checkpoint, self.device, self.batch_size, self.order = checkpoint, device, batch_size, order
        self.path = Path(checkpoint)
        self.chosen, self.column = None if classes is None else tuple(classes), None
        self._file: tuple[ExportedDetector, Preparation, frozenset[int] | None] | None = None
        self._loading = threading.Lock()
        self._loaded()

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in vars(self).items() if name not in ("_file", "_loading")}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state, _file=None, _loading=threading.Lock())

    @property
    def detector(self) -> Detector:
        raise DetError(f"{self.checkpoint}: an exported file has no detector; load its checkpoint")

    @property
    def classes(self) -> Classes:
        return self._loaded()[0].classes

    @property
    def pad_divisor(self) -> int:
        return self._loaded()[0].header.pad_divisor

    @property
    def preparation(self) -> Preparation:
        return self._loaded()[1]

    def detect(self, images: Sequence[PreparedImage]) -> list[Detections]:
        exported, _, labels = self._loaded()
        found = exported.detect([image.views[0] for image in images])
        if labels is None:
            return found
        wanted = torch.tensor(sorted(labels))
        return [d[torch.isin(d.labels, wanted).nonzero().flatten()] for d in found]

    def _loaded(self) -> tuple[ExportedDetector, Preparation, frozenset[int] | None]:
        with self._loading:
            if self._file is None:
                exported = load_exported(self.path, torch.device(self.device or "cpu"))
                preparation = Preparation.of(exported.header.transforms, None, None)
                self._file = exported, preparation, self._labels(exported.classes)
            return self._file

    def _labels(self, classes: Classes) -> frozenset[int] | None:
        """The labels of the chosen classes; None for all."""
        if self.chosen is None:
            return None
        for name in self.chosen:
            if name not in classes.names:
                hint = nearest(name, classes.names)
                raise DetError(f"classes: {self.checkpoint} has no class {name!r}{hint}; it has {len(classes)} classes")
        return frozenset(classes.names.index(name) for name in self.chosen)
