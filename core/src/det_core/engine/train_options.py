"""What a training run is told beside its recipe: said once, for Python and the command line. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from det_core.settings import configclass, setting
from det_core.specs import TIMEOUT


@configclass
class TrainOptions:
    """The options of `det_core.train` and `det-core train`."""

    work_dir: str | Path = setting("Run folder. A folder that holds a run is only used with resume.")
    data: str | Path | None = setting("Root folder of the data set. Default: the recipe's.", default=None)
    init: str | Path | None = setting(
        "Start from the weights of this checkpoint (fine-tuning), a path or an address such as hf://OWNER/NAME, or "
        "from published ones such as torchvision:ssd300_vgg16, downloaded once (`det-core recipes` lists them). Layers "
        "whose shape depends on the number of classes are re-initialised if the class lists differ.",
        default=None,
    )
    resume: bool = setting("Continue from the last checkpoint in the run folder, bit for bit.", default=False)
    device: str | None = setting("cpu, cuda, cuda:N or mps. Default: the GPU if there is one.", default=None)
    max_steps: int | None = setting("Stop after this many steps and save a checkpoint.", default=None, least=1)
    log_every: int = setting("Steps between rows of metrics.jsonl.", default=10, least=1)
    save_every: int | None = setting(
        "Steps between checkpoints. A checkpoint is also saved after each epoch.", default=None, least=1
    )
    timeout: int = setting(
        "Seconds without news from another rank or a loader process after which the run ends with an error.",
        default=TIMEOUT,
        least=1,
    )
    analyze: bool = setting(
        "When training is complete, also write the page of `det-core analyze` (in a run of one process).", default=False
    )
    quiet: bool = setting("Print nothing.", default=False)
