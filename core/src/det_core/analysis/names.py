"""Names of the kinds of errors, and what the command line has by default. Imports no torch or numpy."""

from __future__ import annotations

from typing import Literal

PICTURES = 150  # images that a page embeds
RESAMPLES = 200  # of the bootstrap that compares two runs

ErrorKind = Literal["classification", "localisation", "both", "duplicate", "background", "missed"]

DESCRIPTIONS: dict[ErrorKind, str] = {
    "classification": "well placed (IoU at least .50), but of the wrong class",
    "localisation": "of the right class, but badly placed (IoU .10 to .50)",
    "both": "of the wrong class and badly placed",
    "duplicate": "of an object that a detection with a higher score has found already",
    "background": "where there is no object (IoU at most .10)",
    "missed": "objects that are neither found nor confused nor badly placed",
}
