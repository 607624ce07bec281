"""The model card: front matter that the Hub reads, metrics by class, and how to use the checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import attrs
import yaml

import det_core
from det_core import plugin_manager
from det_core.errors import counted
from det_core.recipe import Recipe
from det_core.settings import Component
from det_core.structures import Classes
from det_plugin_hub.results import Results

CLASSES = 100  # rows of the table of classes
NAMES = {
    "box_ap": "box AP",
    "box_ap50": "box AP at IoU 0.5",
    "box_ap75": "box AP at IoU 0.75",
    "mask_ap": "mask AP",
    "mask_ap50": "mask AP at IoU 0.5",
    "mask_ap75": "mask AP at IoU 0.75",
}


def model_card(
    repository: str, address: str, recipe: Recipe, classes: Classes, results: Results, files: Iterable[str]
) -> str:
    """The text of `README.md`.

    Args:
        repository: `OWNER/NAME`.
        address: `hf://...` of the checkpoint.
        recipe: of the checkpoint.
        classes: of the checkpoint.
        results: metrics, as far as there are some.
        files: pictures to show, as paths in the repository.
    """
    name = repository.rpartition("/")[2]
    front = yaml.safe_dump(_front_matter(name, recipe, results), sort_keys=False, allow_unicode=True)
    parts = [f"---\n{front}---\n", f"# {name}\n", _introduction(recipe, classes), _usage(address, recipe)]
    parts += [_metrics(results), _by_class(results), _analysis(results)]
    parts += [f"![{file.rpartition('/')[2]}]({file})\n" for file in files]
    parts.append(f"The recipe, with all settings, is in [recipe.yaml](recipe.yaml).\n\nClasses: {_named(classes)}\n")
    return "\n".join(part for part in parts if part)


def _front_matter(name: str, recipe: Recipe, results: Results) -> dict[str, Any]:
    masks = recipe.detector.needs_masks()
    task = "image-segmentation" if masks else "object-detection"
    tags = ["det", "object-detection", *(["instance-segmentation"] if masks else []), "pytorch"]
    front: dict[str, Any] = {
        "library_name": "det",
        "pipeline_tag": task,
        "tags": [*tags, recipe.detector.backbone.type],
    }
    if results.metrics:
        data = dataset_name(recipe)
        metrics = [
            {"type": metric, "name": NAMES.get(metric, metric), "value": round(value, 4)}
            for metric, value in results.metrics.items()
        ]
        result = {"task": {"type": task}, "dataset": {"name": data, "type": data}, "metrics": metrics}
        front["model-index"] = [{"name": name, "results": [result]}]
    return front


def dataset_name(recipe: Recipe) -> str:
    """The name of the folder with the data; without one, the type of the data set."""
    return recipe.data.root.rstrip("/").rpartition("/")[2] or recipe.data.train.type


def _introduction(recipe: Recipe, classes: Classes) -> str:
    detector = recipe.detector
    parts = (detector.backbone, detector.neck, detector.dense_head, detector.roi_head)
    named = ", ".join(f"`{part.type}`" for part in parts if isinstance(part, Component))
    return (
        f"A detector of det {det_core.__version__} for {counted(len(classes), 'class', 'es')}, trained with the recipe "
        f"`{recipe.name}` on {dataset_name(recipe)}: {named}.\n"
    )


def _usage(address: str, recipe: Recipe) -> str:
    return f"""## Use

Install {", ".join(f"`{name}`" for name in ["det-plugin-hub", *distributions(recipe)])}.

```sh
det-core predict --checkpoint {address} photos/
det-core train --config my.yaml --data my_data --init {address}
```

```python
import det_core

detections = det_core.Predictor("{address}")("street.jpg")
```
"""


def distributions(recipe: Recipe) -> list[str]:
    """The distributions that provide the parts of a recipe's detector."""
    states = (plugin_manager().provider(type(part)) for part in _components(recipe.detector))
    return sorted({state.distribution for state in states if state is not None and state.distribution})


def _components(value: Any) -> Iterator[Component]:
    """All components in a configuration, at any depth."""
    if isinstance(value, tuple):
        for item in value:
            yield from _components(item)
    elif attrs.has(type(value)):
        if isinstance(value, Component):
            yield value
        for attribute in attrs.fields(type(value)):
            yield from _components(getattr(value, attribute.name))


def _metrics(results: Results) -> str:
    if not results.metrics:
        return "## Metrics\n\nNot evaluated.\n"
    rows = [(NAMES.get(name, name), _percent(value)) for name, value in results.metrics.items()]
    return f"## Metrics\n\nOn the validation data, in percent.\n\n{_table(('metric', '%'), rows)}"


def _by_class(results: Results) -> str:
    """The table of classes, the best first; of more than `CLASSES`, these and how many are left out."""
    if not results.per_class:
        return ""
    columns = list(dict.fromkeys(metric for values in results.per_class.values() for metric in values))
    ordered = sorted(results.per_class.items(), key=lambda item: -item[1].get(columns[0], -1.0))
    rows = [(name, *(_percent(values.get(c)) for c in columns)) for name, values in ordered[:CLASSES]]
    more = len(ordered) - CLASSES
    note = f"\nThe {CLASSES} best of {len(ordered)} classes; metrics.json has all.\n" if more > 0 else ""
    return f"### By class\n\n{_table(('class', *(NAMES.get(c, c) for c in columns)), rows)}{note}"


def _analysis(results: Results) -> str:
    if not results.analysis:
        return ""
    rows = [(name.replace("_", " "), f"{value:.4g}") for name, value in results.analysis.items()]
    return f"## Analysis\n\nFrom `det-core analyze`.\n\n{_table(('figure', 'value'), rows)}"


def _table(columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [columns, ("---", *("---:" for _ in columns[1:])), *rows]
    return "".join(f"| {' | '.join(_cell(cell) for cell in line)} |\n" for line in lines)


def _cell(text: str) -> str:
    """Text that ends neither the cell nor the line, and is no markup."""
    escaped = "".join(f"\\{c}" if c in "\\|`*_<>[]" else c for c in text)
    return " ".join(escaped.split())


def _named(classes: Classes) -> str:
    return ", ".join(_cell(name) for name in classes.names)


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"
