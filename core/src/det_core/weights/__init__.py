"""How other projects' checkpoints map onto these modules, reading them safely, and loading initial weights.

A `WeightMap` says for one component and one source how our names translate into theirs. Maps nest along the
configuration tree: a map names its parts with their configurations, and each part's own map goes on from there.
"""

from det_core.errors import WeightsError
from det_core.offers import Change, Names, Part, WeightMap
from det_core.weights.fill_detector import ImportReport, class_count, import_backbone, import_weights
from det_core.weights.initial_weights import load_initial
from det_core.weights.read_files import SourceFile, read_source, read_state_dict
from det_core.weights.translate_names import SOURCES, holds_detector, translate

__all__ = [
    "SOURCES",
    "Change",
    "ImportReport",
    "Names",
    "Part",
    "SourceFile",
    "WeightMap",
    "WeightsError",
    "class_count",
    "holds_detector",
    "import_backbone",
    "import_weights",
    "load_initial",
    "read_source",
    "read_state_dict",
    "translate",
]
