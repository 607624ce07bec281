"""A convolution whose weights stay: the same values as the layers one after the other, in oneDNN's layout or not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from det_core.model import fold_batch_norm as module
from det_core.model.fold_batch_norm import BatchNorm, FixedConv2d, FixedLinear, conv_norm
from det_core.model.layer_config import GroupNormConfig
from det_core.torch_internals import packing_available

PACKED = "mkldnn::_convolution_pointwise"


def random_norm(channels: int) -> BatchNorm:
    norm = BatchNorm(channels, frozen_statistics=True)
    for values in (norm.weight, norm.running_var):
        nn.init.uniform_(values, 0.5, 2.0)  # type: ignore[arg-type]
    for values in (norm.bias, norm.running_mean):
        nn.init.normal_(values)  # type: ignore[arg-type]
    return norm


def one_after_the_other(conv: nn.Module, norm: nn.Module | None, x: Tensor, add: Tensor | None, relu: bool) -> Tensor:
    out: Tensor = conv(x) if norm is None else norm(conv(x))
    out = out if add is None else out + add
    return out.relu() if relu else out


def operators(function: object, *args: object, **kwargs: object) -> list[str]:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        function(*args, **kwargs)  # type: ignore[operator]
    return [event.name for event in profile.events() or []]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("with_norm", [True, False])
@pytest.mark.parametrize("after", ["nothing", "relu", "add", "add relu"])
@pytest.mark.parametrize("settings", [{}, {"stride": 2}, {"groups": 4}, {"dilation": 2}], ids=str)
def test_values(dtype: torch.dtype, with_norm: bool, after: str, settings: dict[str, int]) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(8, 16, 3, padding=1, bias=not with_norm, **settings).to(dtype)  # type: ignore[arg-type]
    norm = random_norm(16).to(dtype) if with_norm else None
    fixed = FixedConv2d.of(conv)
    with torch.no_grad():
        for height in (9, 14):  # the layout of the weights is chosen at the first
            x = torch.randn(2, 8, height, 11, dtype=dtype)
            add = torch.randn_like(conv(x)) if "add" in after else None
            kept = None if add is None else add.clone()
            out = conv_norm(fixed, norm, x, add=add, relu="relu" in after)
            torch.testing.assert_close(out, one_after_the_other(conv, norm, x, kept, "relu" in after))
            assert add is None or torch.equal(add, kept)  # type: ignore[arg-type]
            torch.testing.assert_close(fixed(x), conv(x))


def test_one_operator_does_it_all() -> None:
    assert packing_available()
    fixed, norm = FixedConv2d.of(nn.Conv2d(8, 16, 3, bias=False)), random_norm(16)
    x, add = torch.randn(1, 8, 9, 9), torch.randn(1, 16, 7, 7)
    with torch.no_grad():
        conv_norm(fixed, norm, x, add=add, relu=True)
        names = operators(conv_norm, fixed, norm, x, add=add, relu=True)
    assert PACKED in names
    assert not {"aten::relu_", "aten::clamp_min_", "aten::add_", "aten::mul"} & set(names)


def _in_grad_mode(fixed: FixedConv2d, x: Tensor) -> Tensor:
    with torch.enable_grad():
        return fixed(x)


def _in_autocast(fixed: FixedConv2d, x: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return fixed(x).float()


def _without_onednn(fixed: FixedConv2d, x: Tensor) -> Tensor:
    with torch.backends.mkldnn.flags(enabled=False):
        return fixed(x)


def _of_no_images(fixed: FixedConv2d, x: Tensor) -> Tensor:
    return fixed(x[:0])


def _of_one_image_alone(fixed: FixedConv2d, x: Tensor) -> Tensor:
    return fixed(x[0])[None]


def _bfloat16_is_computed(monkeypatch: pytest.MonkeyPatch, computed: bool) -> None:
    monkeypatch.setattr(module, "computes_in_bfloat16", lambda: computed)


@pytest.mark.parametrize("after", ["nothing", "relu", "add", "add relu"])
def test_values_in_bfloat16(monkeypatch: pytest.MonkeyPatch, after: str) -> None:
    """Packed under autocast, if the processor computes in it; oneDNN emulates it where it does not."""
    torch.manual_seed(0)
    _bfloat16_is_computed(monkeypatch, computed=True)
    conv, norm = nn.Conv2d(8, 16, 3, padding=1, bias=False), random_norm(16)
    fixed, x = FixedConv2d.of(conv), torch.randn(2, 8, 9, 11)
    add = torch.randn(2, 16, 9, 11) if "add" in after else None
    with torch.no_grad():
        plain = conv_norm(fixed, norm, x, add=add, relu="relu" in after)
        with torch.autocast("cpu", torch.bfloat16):
            out = conv_norm(fixed, norm, x, add=add, relu="relu" in after)
            again = conv_norm(fixed, norm, x.bfloat16(), add=add, relu="relu" in after)
            assert PACKED in operators(conv_norm, fixed, norm, x)
        assert out.dtype == torch.bfloat16
        assert torch.equal(out, again)
        torch.testing.assert_close(out.float(), plain, atol=0.1, rtol=0.05)
        torch.testing.assert_close(conv_norm(fixed, norm, x, add=add, relu="relu" in after), plain)


@pytest.mark.parametrize(("channels", "packings"), [(72, 4), (64, 1)])
def test_small_maps_have_layouts_of_their_own_in_bfloat16(
    monkeypatch: pytest.MonkeyPatch, channels: int, packings: int
) -> None:
    """With the weights of another map they cost hundreds of times as much. Few are kept."""
    torch.manual_seed(0)
    _bfloat16_is_computed(monkeypatch, computed=True)
    conv = nn.Conv2d(8, channels, 3, padding=1)
    fixed = FixedConv2d.of(conv)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for size in ((2, 3), (3, 2), (4, 5), (5, 8), (20, 30), (40, 50)):
            x = torch.randn(1, 8, *size)
            torch.testing.assert_close(fixed(x).float(), conv(x).float(), atol=0.02, rtol=0.02)
        assert len(fixed._packed) == packings
        for width in range(1, 40):
            fixed(torch.randn(1, 8, 1, width))
    assert len(fixed._packed) <= module.LAYOUTS


def test_linear_layers_are_converted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(64, 16)
    fixed, x = FixedLinear.of(linear), torch.randn(5, 64)
    for computed in (True, False):
        _bfloat16_is_computed(monkeypatch, computed)
        with torch.no_grad():
            assert torch.equal(fixed(x), linear(x))
            with torch.autocast("cpu", torch.bfloat16):
                expected = linear(x)
                assert torch.equal(fixed(x), expected)
                first = fixed._converted
                assert torch.equal(fixed(x), expected)
                assert fixed._converted is first
    assert first is not None
    other = nn.Linear(64, 16)
    _bfloat16_is_computed(monkeypatch, computed=True)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        fixed.load_state_dict(other.state_dict())
        assert torch.equal(fixed(x), other(x))


@pytest.mark.filterwarnings("ignore:TF32 acceleration")  # torch's, on setting oneDNN's flags
@pytest.mark.parametrize("call", [_in_grad_mode, _in_autocast, _without_onednn, _of_no_images, _of_one_image_alone])
def test_where_packed_weights_do_not_serve_torch_convolves(monkeypatch: pytest.MonkeyPatch, call: object) -> None:
    torch.manual_seed(0)
    _bfloat16_is_computed(monkeypatch, computed=False)
    conv = nn.Conv2d(8, 16, 3)
    fixed, x = FixedConv2d.of(conv), torch.randn(2, 8, 9, 9)
    with torch.no_grad():
        fixed(x)
        out = call(fixed, x)  # type: ignore[operator]
        assert PACKED not in operators(call, fixed, x)
        torch.testing.assert_close(out, conv(x)[: len(out)], atol=0.05, rtol=0.05)


def test_padding_by_name() -> None:
    conv = nn.Conv2d(8, 16, 3, padding="same")
    x = torch.randn(1, 8, 9, 9)
    with torch.no_grad():
        torch.testing.assert_close(FixedConv2d.of(conv)(x), conv(x))


def test_a_torch_without_the_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.ops, "mkldnn", object())
    assert not packing_available()
    conv, norm = nn.Conv2d(8, 16, 3, bias=False), random_norm(16)
    x = torch.randn(1, 8, 9, 9)
    with torch.no_grad():
        torch.testing.assert_close(conv_norm(FixedConv2d.of(conv), norm, x, relu=True), norm(conv(x)).relu())


def test_the_norm_is_folded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    folded: list[nn.Module] = []
    fold = module.fold
    monkeypatch.setattr(module, "fold", lambda conv, norm: folded.append(norm) or fold(conv, norm))  # type: ignore[func-returns-value]
    fixed, norm, other = FixedConv2d.of(nn.Conv2d(8, 16, 3, bias=False)), random_norm(16), random_norm(16)
    x = torch.randn(1, 8, 9, 9)
    with torch.no_grad():
        for _ in range(3):
            for used in (norm, other):
                torch.testing.assert_close(conv_norm(fixed, used, x), used(nn.Conv2d.forward(fixed, x)))
    assert folded == [norm, other]


def test_norms_that_cannot_be_folded_follow_the_convolution() -> None:
    norm = GroupNormConfig(groups=4).build(16)
    conv = nn.Conv2d(8, 16, 3, bias=False)
    x = torch.randn(1, 8, 9, 9)
    with torch.no_grad():
        torch.testing.assert_close(conv_norm(FixedConv2d.of(conv), norm, x, relu=True), norm(conv(x)).relu())


def test_loaded_and_moved_weights_take_effect() -> None:
    fixed = FixedConv2d.of(nn.Conv2d(8, 16, 3))
    x = torch.randn(1, 8, 9, 9)
    with torch.no_grad():
        fixed(x)
        other = nn.Conv2d(8, 16, 3)
        fixed.load_state_dict(other.state_dict())
        torch.testing.assert_close(fixed(x), other(x))
        fixed.double()
        torch.testing.assert_close(fixed(x.double()), other.double()(x.double()))


def test_training_is_refused() -> None:
    with pytest.raises(TypeError, match="made for inference and cannot be trained; train the original detector"):
        nn.Sequential(FixedConv2d.of(nn.Conv2d(8, 16, 3))).train()
