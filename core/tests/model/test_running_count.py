"""What a detector exchanges between processes: batch norm over all images, and the running mean of positive anchors."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, multiprocessing as mp

from det_core.errors import ConfigError
from det_core.model.fold_batch_norm import BatchNorm
from det_core.model.layer_config import BatchNormConfig
from det_core.model.running_count import RunningLossCount

RANKS = 2


def _as_rank(rank: int, folder: str, work: Callable[[int, Path], None]) -> None:
    store = torch.distributed.FileStore(os.path.join(folder, "store"), RANKS)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=RANKS)
    work(rank, Path(folder))
    group = weakref.ref(torch.distributed.group.WORLD)
    torch.distributed.destroy_process_group()
    assert group() is None, "what keeps the group keeps its threads, which may abort the process when it ends"


def on_two_ranks(folder: Path, work: Callable[[int, Path], None]) -> list[dict[str, Tensor]]:
    """What each rank saves."""
    mp.spawn(_as_rank, (str(folder), work), RANKS)  # type: ignore[no-untyped-call]
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(RANKS)]


def images() -> Tensor:
    return torch.randn(5, 3, 4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3 + 1


def normed(norm: BatchNorm, x: Tensor) -> dict[str, Tensor]:
    """Output, gradients and statistics of a step whose loss is a sum over images."""
    x = x.clone().requires_grad_()
    norm.double()
    found = norm(x)
    (found**3).sum().backward()
    assert x.grad is not None
    statistics = {name: value.clone() for name, value in norm.state_dict().items()}
    gradients = {name: p.grad for name, p in norm.named_parameters() if p.grad is not None}
    return {"y": found.detach(), "dx": x.grad, **statistics, **{f"d{name}": g for name, g in gradients.items()}}


def _norm(rank: int, folder: Path) -> None:
    torch.manual_seed(0)
    own = images()[:5] if rank == 0 else images()[5:]  # a rank may have none
    everything = normed(BatchNorm(3, synchronised=True), own)
    halves = normed(BatchNorm(3, synchronised=True), images()[:2] if rank == 0 else images()[2:])
    torch.save({f"{name} of all": v for name, v in everything.items()} | halves, folder / f"{rank}.pt")


def test_batch_norm_of_all_images(tmp_path: Path) -> None:
    """Equal to the norm of one process that has all images, with empty ranks too; gradients of weights add up."""
    expected = normed(BatchNorm(3), images())
    first, second = on_two_ranks(tmp_path, _norm)
    for kind in ("", " of all"):
        for name in ("y", "dx"):
            assert torch.allclose(torch.cat([first[name + kind], second[name + kind]]), expected[name], atol=1e-9)
        for name in ("dweight", "dbias"):
            assert torch.allclose(first[name + kind] + second[name + kind], expected[name])
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            assert torch.allclose(first[name + kind], expected[name])
            assert torch.equal(first[name + kind], second[name + kind])


def test_alone_and_in_evaluation_it_is_batch_norm() -> None:
    synchronised, plain = BatchNormConfig(synchronised=True).build(3), BatchNormConfig().build(3)
    x = images().float()
    assert torch.equal(synchronised(x), plain(x))
    assert torch.equal(synchronised.eval()(x), plain.eval()(x))


def test_frozen_statistics_are_not_synchronised() -> None:
    with pytest.raises(ConfigError, match="synchronised: frozen statistics are not computed, so set only one of the"):
        BatchNormConfig(synchronised=True, frozen_statistics=True)


def test_running_mean_of_positives() -> None:
    """detectron2, with two images in a process: 0.9 of 100, and 0.1 of the positives, at least 1."""
    count = RunningLossCount()
    assert count(296, 2).item() == pytest.approx(119.6)
    assert count(0, 2).item() == pytest.approx(0.9 * 119.6 + 0.1)
    kept = count.eval()(1000, 2).item()
    assert kept == pytest.approx(0.9 * 119.6 + 0.1)
    assert count(1000, 4).item() == pytest.approx(2 * kept)
    restored = RunningLossCount()
    restored.load_state_dict(count.state_dict())
    assert restored.eval()(0, 2).item() == kept


def _count(rank: int, folder: Path) -> None:
    count = RunningLossCount()
    torch.save({"count": count(10 if rank == 0 else 30, 1)}, folder / f"{rank}.pt")


def test_the_mean_does_not_depend_on_the_number_of_processes(tmp_path: Path) -> None:
    first, second = on_two_ranks(tmp_path, _count)
    assert (first["count"] + second["count"]).item() == pytest.approx(RunningLossCount()(40, 2).item())
