"""Results do not depend on the number of threads, and hardly on the instruction set."""

import fcntl
import os

import pytest
import torch

pytestmark = pytest.mark.cpu
ISAS = ("baseline", "avx2", "avx512")
THREADS = (1, 2, 7)
CODE = """
import ctypes, os, torch, det_ops
from det_ops import libraries, native
from op_samples import LAST, boxes, maps, offsets, rois, scores
crowd, ranks = boxes(6000, side=900), scores(6000)
objects, groups = boxes(60, 5, side=900).round(), torch.arange(6000) % 7
regions = rois(300, width=120, height=90).float()
x = maps(2, 80, 48, 64)
shift, weight = offsets(2, 18, 48, 64).float(), maps(8, 80, 3, 3, seed=3)
logits, target = maps(4000, 40) * 4, torch.arange(4000) % 42 - 1
def everything():
    found = {"nms": [det_ops.nms(crowd, ranks, 0.3)], "batched_nms": [det_ops.batched_nms(crowd, ranks, groups, 0.3)]}
    found["soft_nms"] = det_ops.soft_nms(crowd[:500], ranks[:500])
    found["max_iou_assign"] = det_ops.max_iou_assign(crowd.round(), objects, 0.5, 0.3, 0.1)
    found["box_overlaps"] = [det_ops.box_overlaps(crowd, objects, "giou")]
    for rule in ("sampled", "resized", "quantised"):
        masks = maps(300, 28, 28).sigmoid(), crowd[:300], (700, 900), 0.5, rule
        found[f"paste {rule}"] = [det_ops.paste_masks(*masks), *det_ops.paste_mask_codes(*masks)]
    def differentiate(name, call, *inputs):
        leaves = [t.clone().requires_grad_() for t in inputs]
        result = call(*leaves)
        found[name] = [result.detach(), *torch.autograd.grad(result.sin().sum(), leaves)]
    for mode in ("avg", "max"):
        for layout in ("", "last"):
            laid_out = x.contiguous(memory_format=LAST) if layout else x
            differentiate(f"roi_align {mode} {layout}",
                          lambda f: det_ops.roi_align(f, regions, (7, 7), 0.5, 2, "aligned", mode), laid_out)
    differentiate("roi_pool", lambda f: det_ops.roi_pool(f, regions, (7, 7), 0.5), x)
    differentiate("deform_roi_pool", lambda f: det_ops.deform_roi_pool(f, regions, None, (7, 7), 0.5), x)
    differentiate("deform_psroi_pool", lambda f: det_ops.deform_psroi_pool(f, regions, None, (7, 7), 0.5, 80), x)
    differentiate("deform_conv2d", lambda f, o, w: det_ops.deform_conv2d(f, o, w, padding=1), x, shift, weight)
    found["masked_conv2d"] = [det_ops.masked_conv2d(x, x[:, 0], weight, padding=1)]
    differentiate("focal", lambda t: det_ops.sigmoid_focal_loss(t, target), logits)
    differentiate("focal sum", lambda t: det_ops.sigmoid_focal_loss(t, target, reduction="sum"), logits)
    return found
results = {}
for threads in (1, 2, 7):
    torch.set_num_threads(threads)
    results[threads] = everything()
outcome = native.load(libraries.CPU)
name = ctypes.CDLL(str(outcome.path))._ZN3det15instruction_setEv
name.restype = ctypes.c_char_p
torch.save((name().decode(), results), os.environ["RESULTS"])
"""
# A sum over many products in another order: torch's matrix product is not ours to order.
BY_TORCH = ("deform_conv2d", "masked_conv2d")
PASTED = ("paste sampled", "paste resized", "paste quantised")
EXACT = ("nms", "batched_nms", "max_iou_assign", "box_overlaps", "roi_pool", *PASTED)


@pytest.fixture(scope="module")
def results(native_library, run_python, tmp_path_factory):
    """For each instruction set: its name in the library, and the results by number of threads."""
    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder  # the workers share what one made
    with (folder / "threads.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for isa in ISAS:
            if not (folder / isa).exists():
                run_python(CODE, DET_OPS_ISA=isa, RESULTS=str(folder / isa))
    return {isa: torch.load(folder / isa) for isa in ISAS}


def test_the_library_says_which_instructions_it_uses(results):
    machine = torch.backends.cpu.get_cpu_capability()
    for isa in ISAS:
        found = results[isa][0]
        assert ISAS.index(found) <= ISAS.index(isa)
        if machine.startswith("AVX512") or (machine == "AVX2" and isa != "avx512"):
            assert found == isa


@pytest.mark.parametrize("isa", ISAS)
def test_any_number_of_threads_gives_the_same_bits(results, isa):
    one, *others = (results[isa][1][threads] for threads in THREADS)
    for name, expected in one.items():
        for other in others:
            for ours, theirs in zip(other[name], expected, strict=True):
                if name in BY_TORCH:
                    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5 * float(theirs.abs().max()))
                else:
                    assert torch.equal(ours, theirs), name


@pytest.mark.parametrize("isa", ISAS[1:])
def test_any_instruction_set_takes_the_same_decisions(results, isa):
    baseline, found = results["baseline"][1][1], results[isa][1][1]
    for name in EXACT[:-1]:
        for ours, theirs in zip(found[name], baseline[name], strict=True):
            assert torch.equal(ours, theirs), name
    assert torch.equal(found["soft_nms"][0], baseline["soft_nms"][0])
    assert torch.equal(found["roi_pool"][0], baseline["roi_pool"][0])


@pytest.mark.parametrize("isa", ISAS[1:])
def test_any_instruction_set_gives_close_values(results, isa):
    baseline, found = results["baseline"][1][1], results[isa][1][1]
    for name, expected in baseline.items():
        for ours, theirs in zip(found[name], expected, strict=True):
            if ours.is_floating_point():
                torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5 * float(theirs.abs().max()))
