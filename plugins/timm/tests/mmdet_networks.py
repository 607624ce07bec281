"""mmdet's Swin Transformer and mmpretrain's ConvNeXt as functions of a state dict with their names.

Written from the papers' formulas and the published names and layouts of checkpoints, without timm and without this
plugin: what imported weights are compared with. Letters: N images, C channels, h w size of a map, m window side.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

State = dict[str, Tensor]
WINDOW = 7
SWIN_T = ((96, 2, 3), (192, 2, 6), (384, 6, 12), (768, 2, 24))  # channels, blocks and heads of the stages


class Weights:
    """Draws weights by name, and keeps them."""

    def __init__(self, seed: int = 0) -> None:
        self.state: State = {}
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, name: str, *shape: int, mean: float = 0.0, std: float = 0.1) -> None:
        self.state[name] = mean + std * torch.randn(*shape, generator=self.generator)

    def affine(self, name: str, out: int, *inputs: int) -> None:
        self.normal(f"{name}.weight", out, *inputs, std=torch.tensor(inputs).prod().item() ** -0.5)
        self.normal(f"{name}.bias", out)

    def norm(self, name: str, channels: int) -> None:
        self.normal(f"{name}.weight", channels, mean=1.0)
        self.normal(f"{name}.bias", channels)


def layer_norm(state: State, name: str, x: Tensor, eps: float) -> Tensor:
    """Over the last dimension of (..., C)."""
    return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], eps)


def linear(state: State, name: str, x: Tensor) -> Tensor:
    return F.linear(x, state[f"{name}.weight"], state.get(f"{name}.bias"))


def swin_state() -> State:
    """A checkpoint of Swin-T with all that mmdet saves, of random weights."""
    made = Weights()
    made.affine("patch_embed.projection", 96, 3, 4, 4)
    made.norm("patch_embed.norm", 96)
    steps = torch.arange(WINDOW)
    sequence = (steps[:, None] * (2 * WINDOW - 1) + steps).reshape(1, -1)
    for stage, (channels, blocks, heads) in enumerate(SWIN_T):
        for block in range(blocks):
            name = f"stages.{stage}.blocks.{block}"
            made.norm(f"{name}.norm1", channels)
            made.normal(f"{name}.attn.w_msa.relative_position_bias_table", (2 * WINDOW - 1) ** 2, heads, std=1.0)
            made.state[f"{name}.attn.w_msa.relative_position_index"] = (sequence + sequence.T).flip(1).contiguous()
            made.affine(f"{name}.attn.w_msa.qkv", 3 * channels, channels)
            made.affine(f"{name}.attn.w_msa.proj", channels, channels)
            made.norm(f"{name}.norm2", channels)
            made.affine(f"{name}.ffn.layers.0.0", 4 * channels, channels)
            made.affine(f"{name}.ffn.layers.1", channels, 4 * channels)
        if stage < 3:
            made.norm(f"stages.{stage}.downsample.norm", 4 * channels)
            made.normal(f"stages.{stage}.downsample.reduction.weight", 2 * channels, 4 * channels, std=0.05)
        made.norm(f"norm{stage}", channels)
    return made.state


def swin(state: State, images: Tensor) -> list[Tensor]:
    """(N, 3, H, W) with sides that 32 divides to the maps of the four stages (N, C, h, w)."""
    x = F.conv2d(images, state["patch_embed.projection.weight"], state["patch_embed.projection.bias"], stride=4)
    x = layer_norm(state, "patch_embed.norm", x.permute(0, 2, 3, 1), 1e-5)
    maps = []
    for stage, (_, blocks, heads) in enumerate(SWIN_T):
        for block in range(blocks):
            name = f"stages.{stage}.blocks.{block}"
            shift = WINDOW // 2 if block % 2 else 0
            x = x + _window_attention(
                state, f"{name}.attn.w_msa", layer_norm(state, f"{name}.norm1", x, 1e-5), heads, shift
            )
            hidden = F.gelu(linear(state, f"{name}.ffn.layers.0.0", layer_norm(state, f"{name}.norm2", x, 1e-5)))
            x = x + linear(state, f"{name}.ffn.layers.1", hidden)
        maps.append(layer_norm(state, f"norm{stage}", x, 1e-5).permute(0, 3, 1, 2))
        if stage < 3:
            x = _merge(state, f"stages.{stage}.downsample", x)
    return maps


def _merge(state: State, name: str, x: Tensor) -> Tensor:
    """(N, h, w, C) to (N, h / 2, w / 2, 2C), with `unfold`, whose channels are in the order (channel, row, column)."""
    count, height, width, _ = x.shape
    patches = F.unfold(x.permute(0, 3, 1, 2), 2, stride=2).transpose(1, 2)
    merged = linear(state, f"{name}.reduction", layer_norm(state, f"{name}.norm", patches, 1e-5))
    return merged.reshape(count, height // 2, width // 2, -1)


def _window_attention(state: State, name: str, x: Tensor, heads: int, shift: int) -> Tensor:
    """(N, h, w, C) to the same: padded to whole windows, then shifted."""
    count, height, width, channels = x.shape
    down, right = (-(-side // WINDOW) * WINDOW - side for side in (height, width))
    x = F.pad(x, (0, 0, 0, right, 0, down))
    rows, columns = x.shape[1:3]
    index = state[f"{name}.relative_position_index"]
    bias = state[f"{name}.relative_position_bias_table"][index].permute(2, 0, 1)  # (heads, m * m, m * m)
    out = torch.zeros_like(x)
    for top in range(0, rows, WINDOW):
        for left in range(0, columns, WINDOW):
            ys = torch.arange(top, top + WINDOW) + shift
            xs = torch.arange(left, left + WINDOW) + shift
            wrapped = ((ys >= rows).long()[:, None] * 2 + (xs >= columns).long()).flatten()
            ys, xs = ys % rows, xs % columns
            window = x[:, ys][:, :, xs].reshape(count, WINDOW**2, channels)
            qkv = linear(state, f"{name}.qkv", window).reshape(count, WINDOW**2, 3, heads, -1).permute(2, 0, 3, 1, 4)
            q, k, v = qkv
            logits = q @ k.transpose(-1, -2) * (channels // heads) ** -0.5 + bias
            logits = logits.masked_fill(wrapped[:, None] != wrapped, -torch.inf)
            mixed = (logits.softmax(-1) @ v).transpose(1, 2).reshape(count, WINDOW**2, channels)
            result = linear(state, f"{name}.proj", mixed).reshape(count, WINDOW, WINDOW, channels)
            out[:, ys[:, None], xs[None]] = result
    return out[:, :height, :width]


def convnext_state(widths: tuple[int, ...], depths: tuple[int, ...]) -> State:
    """A checkpoint of ConvNeXt with all that mmpretrain saves, of random weights."""
    made = Weights()
    for stage, (channels, blocks) in enumerate(zip(widths, depths, strict=True)):
        if stage == 0:
            made.affine("downsample_layers.0.0", channels, 3, 4, 4)
            made.norm("downsample_layers.0.1", channels)
        else:
            made.norm(f"downsample_layers.{stage}.0", widths[stage - 1])
            made.affine(f"downsample_layers.{stage}.1", channels, widths[stage - 1], 2, 2)
        for block in range(blocks):
            name = f"stages.{stage}.{block}"
            made.normal(f"{name}.gamma", channels, std=1.0)
            made.affine(f"{name}.depthwise_conv", channels, 1, 7, 7)
            made.norm(f"{name}.norm", channels)
            made.affine(f"{name}.pointwise_conv1", 4 * channels, channels)
            made.affine(f"{name}.pointwise_conv2", channels, 4 * channels)
        made.norm(f"norm{stage}", channels)
    return made.state


def convnext(state: State, images: Tensor, depths: tuple[int, ...]) -> list[Tensor]:
    """(N, 3, H, W) with sides that 32 divides to the maps of the four stages (N, C, h, w)."""

    def norm(name: str, x: Tensor) -> Tensor:
        return layer_norm(state, name, x.permute(0, 2, 3, 1), 1e-6).permute(0, 3, 1, 2)

    def conv(name: str, x: Tensor, **how: int) -> Tensor:
        return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], **how)

    x, maps = images, []
    for stage, blocks in enumerate(depths):
        if stage == 0:
            x = norm("downsample_layers.0.1", conv("downsample_layers.0.0", x, stride=4))
        else:
            x = conv(f"downsample_layers.{stage}.1", norm(f"downsample_layers.{stage}.0", x), stride=2)
        for block in range(blocks):
            name = f"stages.{stage}.{block}"
            y = norm(f"{name}.norm", conv(f"{name}.depthwise_conv", x, padding=3, groups=x.shape[1]))
            y = F.gelu(linear(state, f"{name}.pointwise_conv1", y.permute(0, 2, 3, 1)))
            y = linear(state, f"{name}.pointwise_conv2", y).permute(0, 3, 1, 2)
            x = x + state[f"{name}.gamma"].reshape(1, -1, 1, 1) * y
        maps.append(norm(f"norm{stage}", x))
    return maps
