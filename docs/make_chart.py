"""Draws docs/images/box_ap.svg: published box AP of the recipes over their GFLOPs.

python docs/make_chart.py

AP is the published figure that `det-core recipes` shows, of the later re-run where there is one. GFLOPs are those of
docs/zoo_costs.json. The background is opaque, so that the chart can be read on light and on dark pages.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

from attrs import frozen

from det_core.plugins import plugin_manager

HERE = Path(__file__).resolve().parent
CHART = HERE / "images" / "box_ap.svg"
COSTS = HERE / "zoo_costs.json"

WIDTH, HEIGHT = 1000, 660
LEFT, RIGHT, TOP, BOTTOM = 60, 985, 60, 600  # of the axes, in pixels
GFLOPS, AP = (0, 1750), (20, 52)  # ranges of the axes
FONT, CHARACTER, LINE = 13, 7.0, 16  # pixels: size, mean width of a character, distance of two lines

BACKBONES = ("r50", "r101", "x101-32x4d", "x101-64x4d")
STEPS = tuple(f"{b}-fpn-1x" for b in BACKBONES)
CAFFE = tuple(f"{b}{'-caffe' * b.startswith('r')}-fpn-1x" for b in BACKBONES)
LONGER = tuple(f"{b}-fpn-20e" for b in BACKBONES)


@frozen
class Family:
    """A line of one model on the four backbones, with its label left of the first point or right of the last one."""

    label: str
    model: str
    recipes: Sequence[str]
    colour: str
    left: bool = True


FAMILIES = (
    Family("RetinaNet", "retinanet", STEPS, "#8a5a00"),
    Family("GA-RetinaNet", "ga-retinanet", CAFFE, "#bc4c00"),
    Family("Faster R-CNN", "faster-rcnn", STEPS, "#0757b8"),
    Family("Mask R-CNN", "mask-rcnn", STEPS, "#116329"),
    Family("GA-Faster R-CNN", "ga-faster-rcnn", CAFFE, "#0b6b86"),
    Family("Cascade R-CNN", "cascade-rcnn", STEPS, "#6639ba"),
    Family("Cascade Mask R-CNN", "cascade-mask-rcnn", STEPS, "#99286e", left=False),
    Family("HTC, 20 epochs", "htc", LONGER, "#a40e26", left=False),
)
SINGLE = {  # recipe: its label, and whether it is left of the point
    "ssd/torchvision-mobilenet-v3-large-320": ("SSDLite, MobileNetV3", False),
    "faster-rcnn/torchvision-mobilenet-v3-large-320-fpn": ("Faster R-CNN, MobileNetV3, 320 pixels", False),
    "faster-rcnn/torchvision-mobilenet-v3-large-fpn": ("Faster R-CNN, MobileNetV3", False),
    "ssd/vgg16-300-coco-120e": ("SSD300, VGG-16", False),
    "ssd/vgg16-512-coco-120e": ("SSD512, VGG-16", False),
    "retinanet/torchvision-r50-fpn-v2": ("RetinaNet R-50, torchvision v2", True),
    "faster-rcnn/torchvision-r50-fpn-v2": ("Faster R-CNN R-50, torchvision v2", True),
    "mask-rcnn/torchvision-r50-fpn-v2": ("Mask R-CNN R-50, torchvision v2", True),
    "mask-rcnn/swin-t-fpn-ms-crop-3x": ("Mask R-CNN, Swin-T", True),
    "mask-rcnn/convnext-t-fpn-ms-crop-3x": ("Mask R-CNN, ConvNeXt-T", True),
    "htc/x101-64x4d-fpn-dconv-c3-c5-ms-20e": ("HTC, X-101-64x4d with DCN", True),
}
MARKS = {"r50": "R-50", "r101": "R-101", "x101-32x4d": "X-101-32x4d", "x101-64x4d": "X-101-64x4d"}


@frozen
class Label:
    """A text at a height, beside its point; `left` texts end at x, others begin there. All in pixels."""

    text: str
    x: float
    y: float
    left: bool
    colour: str
    point: tuple[float, float]

    def box(self) -> tuple[float, float, float, float]:
        """x1, y1, x2, y2 of the text, about."""
        width = len(self.text) * CHARACTER
        x1 = self.x - width if self.left else self.x
        return x1, self.y - LINE / 2, x1 + width, self.y + LINE / 2


def figures() -> dict[str, tuple[float, float]]:
    """(GFLOPs, box AP) of every recipe that has both, and figures on COCO's images."""
    costs = json.loads(COSTS.read_text(encoding="utf8"))
    found = {}
    for name, entry in plugin_manager().recipes().items():
        published = entry.published
        if published is None or published.dataset != "coco" or name not in costs:
            continue
        ap = published.modern_box_ap or published.box_ap
        if ap is not None:
            found[name] = (costs[name][1], ap)
    return found


def place(point: tuple[float, float]) -> tuple[float, float]:
    """Pixels of (GFLOPs, AP)."""
    x = LEFT + (point[0] - GFLOPS[0]) / (GFLOPS[1] - GFLOPS[0]) * (RIGHT - LEFT)
    y = BOTTOM - (point[1] - AP[0]) / (AP[1] - AP[0]) * (BOTTOM - TOP)
    return x, y


def labels(known: dict[str, tuple[float, float]]) -> list[Label]:
    """All labels, moved apart where they would overlap."""
    wanted = []
    starts = place((430, 0))[0] - 20  # the labels of lines that begin on the left are one column
    for family in FAMILIES:
        x, y = place(known[f"{family.model}/{family.recipes[0 if family.left else -1]}"])
        at = starts if family.left else x + 12
        wanted.append(Label(family.label, at, y, family.left, family.colour, (x, y)))
    for name, (text, left) in SINGLE.items():
        x, y = place(known[name])
        wanted.append(Label(text, x - 9 if left else x + 9, y, left, "#1f2328", (x, y)))
    placed: list[Label] = []
    for label in sorted(wanted, key=lambda one: -one.y):
        y = label.y
        while any(overlap(moved(label, y), other) for other in placed):
            y -= 1
        placed.append(moved(label, y))
    return placed


def moved(label: Label, y: float) -> Label:
    return Label(label.text, label.x, y, label.left, label.colour, label.point)


def overlap(one: Label, other: Label) -> bool:
    a, b = one.box(), other.box()
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def svg() -> str:
    known = figures()
    return "\n".join([*frame(), *axes(), *others(known), *lines(known), *names(known), *legend(), "</svg>"]) + "\n"


def frame() -> Iterator[str]:
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'font-family="sans-serif" font-size="{FONT}" role="img">'
    )
    yield "<title>Published box AP on COCO val2017 over GFLOPs of one image, by model and backbone</title>"
    yield (f'<rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{HEIGHT - 1}" rx="8" fill="#ffffff" stroke="#d1d9e0"/>')


def axes() -> Iterator[str]:
    for gflops in range(GFLOPS[0], GFLOPS[1] + 1, 250):
        x = place((gflops, 0))[0]
        yield f'<line x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{BOTTOM}" stroke="#eaeef2"/>'
        yield f'<text x="{x:.1f}" y="{BOTTOM + 20}" text-anchor="middle" fill="#59636e">{gflops}</text>'
    for ap in range(AP[0], AP[1] + 1, 5):
        y = place((0, ap))[1]
        yield f'<line x1="{LEFT}" y1="{y:.1f}" x2="{RIGHT}" y2="{y:.1f}" stroke="#eaeef2"/>'
        yield f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end" fill="#59636e">{ap}</text>'
    middle = (LEFT + RIGHT) / 2
    yield (
        f'<text x="{middle}" y="{BOTTOM + 44}" text-anchor="middle" fill="#1f2328">'
        "GFLOPs of one image at test size</text>"
    )
    yield (
        f'<text transform="translate(20 {(TOP + BOTTOM) / 2}) rotate(-90)" text-anchor="middle" fill="#1f2328">'
        "published box AP, COCO val2017</text>"
    )


def others(known: dict[str, tuple[float, float]]) -> Iterator[str]:
    """A small grey dot for every recipe that has no mark of its own."""
    own = {f"{f.model}/{r}" for f in FAMILIES for r in f.recipes} | SINGLE.keys()
    for name, (gflops, ap) in sorted(known.items()):
        if name not in own and "-c4-" not in name and gflops <= GFLOPS[1] and ap >= AP[0]:
            x, y = place((gflops, ap))
            yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.2" fill="#afb8c1"><title>{escape(name)}</title></circle>'


def lines(known: dict[str, tuple[float, float]]) -> Iterator[str]:
    for family in FAMILIES:
        recipes = [f"{family.model}/{r}" for r in family.recipes]
        points = [place(known[name]) for name in recipes]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        yield f'<polyline points="{path}" fill="none" stroke="{family.colour}" stroke-width="1.6"/>'
        for name, backbone, (x, y) in zip(recipes, BACKBONES, points, strict=True):
            yield mark(backbone, x, y, family.colour, name)
    for name in SINGLE:
        x, y = place(known[name])
        yield (
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="#ffffff" stroke="#1f2328" stroke-width="1.8">'
            f"<title>{escape(name)}</title></circle>"
        )


def mark(backbone: str, x: float, y: float, colour: str, name: str = "") -> str:
    """The symbol of a backbone."""
    title = f"<title>{escape(name)}</title>" if name else ""
    corners = {
        "r101": [(-4.5, -4.5), (4.5, -4.5), (4.5, 4.5), (-4.5, 4.5)],
        "x101-32x4d": [(0, -6), (5.5, 4.5), (-5.5, 4.5)],
        "x101-64x4d": [(0, -6.5), (6.5, 0), (0, 6.5), (-6.5, 0)],
    }
    if backbone not in corners:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="{colour}">{title}</circle>'
    points = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners[backbone])
    return f'<polygon points="{points}" fill="{colour}">{title}</polygon>'


def names(known: dict[str, tuple[float, float]]) -> Iterator[str]:
    """The labels, with a line to the point of those that are not beside it."""
    for label in labels(known):
        x, y = label.point
        if abs(label.x - x) > 15 or abs(label.y - y) > 4:
            end = label.x + (3 if label.left else -3)
            yield (
                f'<line x1="{end:.1f}" y1="{label.y:.1f}" x2="{x:.1f}" y2="{y:.1f}" stroke="{label.colour}" '
                'stroke-width="0.7" stroke-dasharray="2 2"/>'
            )
        anchor = "end" if label.left else "start"
        yield (
            f'<text x="{label.x:.1f}" y="{label.y + 4.5:.1f}" text-anchor="{anchor}" fill="{label.colour}" '
            f'stroke="#ffffff" stroke-width="3" paint-order="stroke">{escape(label.text)}</text>'
        )


def legend() -> Iterator[str]:
    x = LEFT
    for backbone, text in MARKS.items():
        yield mark(backbone, x + 6, 30, "#59636e")
        yield f'<text x="{x + 17}" y="34.5" fill="#1f2328">{text}</text>'
        x += 40 + int(len(text) * CHARACTER)
    yield f'<circle cx="{x + 6}" cy="30" r="4" fill="#ffffff" stroke="#1f2328" stroke-width="1.8"/>'
    yield f'<text x="{x + 17}" y="34.5" fill="#1f2328">as labelled</text>'
    x += 40 + int(len("as labelled") * CHARACTER)
    yield f'<circle cx="{x + 6}" cy="30" r="2.2" fill="#afb8c1"/>'
    yield f'<text x="{x + 15}" y="34.5" fill="#1f2328">other recipes (longer training, DCN, group norm, ...)</text>'


if __name__ == "__main__":
    CHART.write_text(svg(), encoding="utf8")
