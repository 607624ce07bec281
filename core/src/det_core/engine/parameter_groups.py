"""The parameters of a detector in groups of one learning rate and weight decay, and those that do not train."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from attrs import frozen
from torch import nn, optim

from det_core.contracts import Backbone, is_within
from det_core.errors import ConfigError, first_few, nearest
from det_core.slots import OptimizerConfig
from det_core.specs import ParameterRule

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
NORMS = (*BATCH_NORMS, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
LR_FACTOR = "lr_factor"  # in a group of an optimiser: the factor on the run's learning rate


@frozen
class Treatment:
    """How a parameter is trained."""

    lr_factor: float = 1.0
    weight_decay: float = 0.0
    frozen: bool = False

    def changed(self, rule: ParameterRule) -> Treatment:
        """With a rule that matches the parameter."""
        return Treatment(
            self.lr_factor * rule.lr_factor,
            self.weight_decay if rule.weight_decay is None else rule.weight_decay,
            self.frozen or rule.frozen,
        )


def build_optimizer(config: OptimizerConfig, model: nn.Module) -> optim.Optimizer:
    """The optimiser of all trainable parameters, which must be on their device. The rate is set at every step.

    Raises:
        ConfigError: for a rule without a parameter, `layer_decay` of a backbone without layers, or if all is frozen.
    """
    return config.build(parameter_groups(config, model))


def set_learning_rate(optimizer: optim.Optimizer, rate: float) -> None:
    """Set the rate of every group to `rate` times its factor."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get(LR_FACTOR, 1.0)


def freeze(config: OptimizerConfig, model: nn.Module) -> tuple[nn.Module, ...]:
    """Stop the training of the parameters that rules freeze.

    Returns the batch norms of which all parameters are frozen: they must stay in evaluation mode.
    """
    off = {name for name, how in treatments(config, model).items() if how.frozen}
    for name, parameter in model.named_parameters():
        if name in off:
            parameter.requires_grad_(False)
    return tuple(
        module
        for prefix, module in model.named_modules()
        if isinstance(module, BATCH_NORMS)
        and (own := [f"{prefix}.{n}".removeprefix(".") for n, _ in module.named_parameters(recurse=False)])
        and off.issuperset(own)
    )


def parameter_groups(config: OptimizerConfig, model: nn.Module) -> list[dict[str, Any]]:
    """The trainable parameters as torch's optimisers take them, in groups of one treatment.

    Each group has `params`, `lr`, `weight_decay` and, if it is not 1, its factor on the learning rate.
    """
    how = treatments(config, model)
    groups: dict[Treatment, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and not how[name].frozen:
            groups.setdefault(how[name], []).append(parameter)
    if not groups:
        raise ConfigError.at("optimizer.rules", "they freeze all parameters, so there is nothing to train")
    return [
        {"params": parameters, "lr": config.lr * key.lr_factor, "weight_decay": key.weight_decay}
        | ({} if key.lr_factor == 1 else {LR_FACTOR: key.lr_factor})
        for key, parameters in groups.items()
    ]


def treatments(config: OptimizerConfig, model: nn.Module) -> dict[str, Treatment]:
    """The treatment of each parameter by name; ConfigError as in `build_optimizer`."""
    norms = _names_of_norms(model)
    factors = {} if config.layer_decay is None else _layer_factors(model, config.layer_decay)
    made = {}
    for name, _ in model.named_parameters():
        decay = config.weight_decay
        if name in norms:
            decay = decay if config.norm_weight_decay is None else config.norm_weight_decay
        elif name.rpartition(".")[2] == "bias" and config.bias_weight_decay is not None:
            decay = config.bias_weight_decay
        made[name] = Treatment(factors.get(name, 1.0), decay)
    for number, rule in enumerate(config.rules):
        matching = [name for name in made if fnmatchcase(name, rule.pattern)]
        if not matching:
            raise _no_match(number, rule, model)
        made |= {name: made[name].changed(rule) for name in matching}
    return made


def _names_of_norms(model: nn.Module) -> set[str]:
    return {
        f"{prefix}.{name}".removeprefix(".")
        for prefix, module in model.named_modules()
        if isinstance(module, NORMS)
        for name, _ in module.named_parameters(recurse=False)
    }


def _layer_factors(model: nn.Module, decay: float) -> Mapping[str, float]:
    """The factors of layer-wise decay (Clark et al., 2020, section 3.3.1) of the backbone's parameters."""
    factors: dict[str, float] = {}
    for prefix, module in model.named_modules():
        if not isinstance(module, Backbone):
            continue
        layers = module.layers()
        if not layers:
            message = (
                f"{type(module).__name__} does not say what its layers are (`Backbone.layers`); leave it out (null), "
                "or set `rules` by name"
            )
            raise ConfigError.at("optimizer.layer_decay", message)
        for number, layer in enumerate(layers):
            parts = [f"{prefix}.{name}".removeprefix(".") for name in layer]
            names = [name for name, _ in model.named_parameters() if is_within(name, parts)]
            factors |= dict.fromkeys(names, decay ** (len(layers) - number))
    return factors


def _no_match(number: int, rule: ParameterRule, model: nn.Module) -> ConfigError:
    names = [name for name, _ in model.named_parameters()]
    prefixes = list(dict.fromkeys(".".join(n.split(".")[:k]) + ".*" for n in names for k in (1, 2, 3) if "." in n))
    hint = nearest(rule.pattern, prefixes) or f"; parameters: {first_few(names)}"
    message = f"no parameter has a name like {rule.pattern!r}{hint}"
    return ConfigError.at(f"optimizer.rules[{number}].pattern", message)


def describe(groups: list[dict[str, Any]]) -> list[str]:
    """A line for each parameter group of an optimiser, if there are several."""
    if len(groups) < 2:
        return []
    return [
        f"{sum(p.numel() for p in group['params']) / 1e6:.2f} M parameters: learning rate "
        f"{'x ' + format(group[LR_FACTOR], '.3g') if LR_FACTOR in group else 'x 1'}, "
        f"weight decay {group['weight_decay']:g}"
        for group in groups
    ]
