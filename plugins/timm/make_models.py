"""Write `models.csv`: the maps of timm's networks, measured by running each without values. Takes some minutes.

python plugins/timm/make_models.py
"""

from __future__ import annotations

import csv
from functools import partial

import timm

from det_core.safe_write import replacing
from det_plugin_timm.model_table import COLUMNS, FILE, as_cells
from det_plugin_timm.networks import measured


def main() -> None:
    rows = [as_cells(name, found) for name in timm.list_models() if (found := measured(name)) is not None]
    with replacing(FILE) as path, path.open("w", encoding="utf8", newline="") as file:
        file.write(f"# timm {timm.__version__}\n")
        write = partial(csv.writer, lineterminator="\n")(file)
        write.writerow(COLUMNS)
        write.writerows(rows)


if __name__ == "__main__":
    main()
