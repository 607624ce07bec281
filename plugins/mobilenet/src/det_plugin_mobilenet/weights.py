"""Weight maps of MobileNetV3: det has the names of torchvision's classifiers, whose detectors rename them."""

from det_core.offers import Names, WeightMap
from det_plugin_mobilenet.config import MobileNetV3Config


def _torchvision(config: MobileNetV3Config) -> Names:
    """torchvision's Faster R-CNN has the blocks alone (`backbone.body.13`), its SSDLite two halves of them.

    The first half ends after the expansion in the first block of stage 4. The second half begins with the rest of that
    block, whose layers keep their numbers, and counts the blocks after it from 1.
    """
    if config.taken != "expanded":
        return Names(rules=((r"features\.", ""),))
    cut, end = config.layout.starts[3], config.layout.starts[4]
    later = tuple((rf"features\.{number}\.", f"features.1.{number - cut}.") for number in range(cut + 1, end + 1))
    halves = ((rf"features\.{cut}\.block\.0\.", f"features.0.{cut}."), (rf"features\.{cut}\.block\.", "features.1.0."))
    return Names(rules=(*halves, *later, (r"features\.(\d+)\.", r"features.0.\1.")))


WEIGHT_MAPS = (WeightMap("torchvision", MobileNetV3Config, _torchvision),)
