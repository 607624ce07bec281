"""Optimisers, schedules, precision, evaluation and hooks of mmdetection 1.x, 2.x and 3.x."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from det_core.import_config.ledger import NO_COUNTERPART, Node, shown
from det_core.import_config.target import Target
from det_core.import_config.timm_backbones import usual_rules
from det_core.import_config.transforms import tta_options
from det_core.weights.mmdet_values import number, numbers, parts, whole

RATE = "schedule.learning_rate"
# Hooks whose work the engine does, as far as they have no settings of their own.
_USUAL_HOOKS = (
    *("IterTimerHook", "LoggerHook", "ParamSchedulerHook", "CheckpointHook", "DistSamplerSeedHook"),
    *("DetVisualizationHook", "NumClassCheckHook", "CheckInvalidLossHook", "TextLoggerHook", "SyncBuffersHook"),
    "RuntimeInfoHook",
)
# Top-level names about a run, its processes and its logs, which have no effect on what is trained.
_RUNTIME = (
    *("default_scope", "env_cfg", "vis_backends", "visualizer", "log_processor", "log_level", "dist_params"),
    *("opencv_num_threads", "mp_start_method", "gpu_ids", "gpus", "launcher", "auto_resume", "device", "local_rank"),
    *("find_unused_parameters", "cudnn_benchmark", "log_interval", "val_cfg", "test_cfg_loop"),
)


def translate_schedule(target: Target, root: Node, *, modern: bool) -> None:
    """Optimiser, length, learning rate, precision, evaluation, and what a run needs besides."""
    wrapper = root.at("optim_wrapper")
    _optimizer(target, wrapper.at("optimizer") if wrapper.given else root.at("optimizer"), wrapper)
    _length(target, root)
    if modern:
        _wrapper(target, wrapper)
        _schedulers(target, root.at("param_scheduler"))
    else:
        _clip(target, root.at("optimizer_config"))
        root.at("optimizer_config").ignore("type", "grad_clip")
        fp16 = root.at("fp16")
        target.put("schedule.precision", "fp16" if fp16.value not in (None, False) and fp16.given else "fp32", fp16)
        _lr_config(target, root.at("lr_config"))
    _seed(target, root)
    _evaluation(target, root, modern=modern)
    _hooks(target, root)
    _run(root)


# Optimisers


def _optimizer(target: Target, node: Node, wrapper: Node) -> None:
    if not node.given:
        return
    kind = {"SGD": "sgd", "AdamW": "adamw"}.get(node.type)
    if kind is None:
        node.refuse(
            f"optimiser {shown(node.value)} {NO_COUNTERPART}; the recipe's {target.get('optimizer.type')} is kept"
        )
        return
    if target.get("optimizer.type") != kind:
        batch = target.get("optimizer.lr_batch")
        made = {"type": kind, "lr": 1e-3, "weight_decay": 0.0, "rules": [], "lr_batch": batch}
        target.put("optimizer", made, node)
        target.fill()
    target.copy_number("optimizer.lr", node.at("lr"), 0.001)
    decay = node.at("weight_decay").number(0.0 if kind == "sgd" else 0.01)
    target.put("optimizer.weight_decay", decay, node.at("weight_decay"))
    if kind == "sgd":
        target.copy_number("optimizer.momentum", node.at("momentum"), 0.0)
        target.put("optimizer.nesterov", bool(node.at("nesterov").take(False)), node.at("nesterov"))
    else:
        betas = numbers(node.at("betas").take((0.9, 0.999)))
        target.put("optimizer.betas", [float(v) for v in betas or ()], node.at("betas"))
        target.copy_number("optimizer.eps", node.at("eps"), 1e-8)
    parameters, constructor = (
        (wrapper if wrapper.at(key).given else node).at(key) for key in ("paramwise_cfg", "constructor")
    )
    if not usual_rules(target, parameters, constructor):
        _parameters(target, parameters, decay)
    node.ignore("_delete_")
    if constructor.path not in constructor.ledger.used:
        usual = ("DefaultOptimizerConstructor", "DefaultOptimWrapperConstructor")
        (wrapper if wrapper.at("constructor").given else node).expect("constructor", *usual)


def _parameters(target: Target, node: Node, decay: float) -> None:
    """Learning rates and weight decays by parameter (`paramwise_cfg`)."""
    for theirs, ours in (("norm_decay_mult", "norm_weight_decay"), ("bias_decay_mult", "bias_weight_decay")):
        factor = node.at(theirs)
        value = number(factor.take())
        if value is not None and value != 1:
            target.put(f"optimizer.{ours}", decay * value, factor)
    node.expect(
        "bias_lr_mult", 1.0, why="a learning rate of all biases is a rule: optimizer.rules with pattern '*.bias'"
    )
    node.ignore("bypass_duplicate")
    rules = []
    for rule in node.at("custom_keys").children():
        rate, own = number(rule.at("lr_mult").take()), number(rule.at("decay_mult").take())
        made: dict[str, Any] = {"pattern": f"*{rule.path[-1]}*"}
        if rate == 0:
            made["frozen"] = True
        elif rate is not None:
            made["lr_factor"] = rate
        if own is not None:
            made["weight_decay"] = decay * own
        rules.append(made)
        rule.note(f"taken over as the rule {made['pattern']!r}; names of parameters differ, so check it")
    if rules:
        target.put("optimizer.rules", rules, node.at("custom_keys"))


def _wrapper(target: Target, node: Node) -> None:
    kind = node.type
    precision = "fp32"
    if kind == "AmpOptimWrapper":
        precision = {"bfloat16": "bf16"}.get(str(node.at("dtype").take("float16")), "fp16")
        node.expect("loss_scale", "dynamic", why="the scale of the loss is dynamic")
    elif kind not in ("OptimWrapper", ""):
        node.at("type").refuse(f"optimiser wrapper {kind} {NO_COUNTERPART}")
    target.put("schedule.precision", precision, node.at("type"))
    target.copy("schedule.accumulate", node.at("accumulative_counts"), 1)
    _clip(target, node)


def _clip(target: Target, node: Node) -> None:
    clip = node.first("clip_grad", "grad_clip")
    if clip.given and isinstance(clip.value, Mapping):
        clip.expect("norm_type", 2)
        most = clip.at("max_norm")
        if most.given:
            target.put("schedule.clip_norm", number(most.take()), most)
        node.ledger.list_unused(clip)
    clip.take()
    if clip.value is None and target.get("schedule.clip_norm") is not None:
        target.put("schedule.clip_norm", None, clip)


# Length and learning rate


def _length(target: Target, root: Node) -> None:
    loop = root.at("train_cfg")
    epochs = root.first("total_epochs", "runner.max_epochs", "train_cfg.max_epochs")
    runner = root.at("runner")
    for node, kind in ((runner, runner.type), (loop, loop.type if epochs.path[0] == "train_cfg" else "")):
        if "Iter" in kind:
            node.at("type").refuse(f"{kind}: training is counted in epochs, not in steps; set schedule.epochs")
    if epochs.given and whole(epochs.take()) is not None:
        target.put("schedule.epochs", epochs.value, epochs)
    target.copy_given("evaluation.every_epochs", loop.at("val_interval"))
    loop.expect("val_begin", 1)
    loop.expect("dynamic_intervals", None)
    root.ignore("max_epochs")


def _lr_config(target: Target, node: Node) -> None:
    """1.x and 2.x."""
    if not node.given:
        return
    policy, by_epoch = str(node.at("policy").take("")).lower(), node.at("by_epoch").take(True)
    unit, base = "epoch" if by_epoch else "step", target.get("optimizer.lr")
    if policy == "step":
        steps = node.at("step")
        milestones = numbers(steps.value)
        if milestones is None:
            steps.refuse(f"{shown(steps.value)}; give the epochs at which the rate drops (schedule.learning_rate)")
        else:
            steps.take()
            made = {"type": "step", "milestones": [int(v) for v in milestones], "by": unit}
            target.put(RATE, {**made, "gamma": node.at("gamma").number(0.1)}, steps)
    elif policy in ("cosineannealing", "cosine", "cosineannealinglrupdaterhook"):
        floor = _floor(node.at("min_lr_ratio"), node.at("min_lr"), base)
        target.put(RATE, {"type": "cosine", "floor": floor, "by": unit}, node.at("policy"))
    elif policy == "poly":
        floor = _floor(node.at("min_lr_ratio"), node.at("min_lr"), base)
        power = node.at("power").number(1.0)
        target.put(RATE, {"type": "polynomial", "power": power, "floor": floor, "by": unit}, node.at("policy"))
    elif policy in ("fixed", ""):
        target.put(RATE, {"type": "constant"}, node.at("policy"))
    else:
        node.at("policy").refuse(f"learning rate {policy!r} {NO_COUNTERPART}; the recipe's is kept")
    _warm_up(target, node)


def _warm_up(target: Target, node: Node) -> None:
    kind = node.at("warmup")
    if kind.take() is None:
        target.put("schedule.warmup_steps", 0, kind)
        node.ignore("warmup_iters", "warmup_ratio")
        return
    node.expect("warmup", "linear", why=f"a warm-up {shown(kind.value)} {NO_COUNTERPART}; a linear one is used")
    node.expect("warmup_by_epoch", False, why="a warm-up is counted in steps; set schedule.warmup_steps")
    target.copy("schedule.warmup_steps", node.at("warmup_iters"), 0)
    target.copy_number("schedule.warmup_factor", node.at("warmup_ratio"), 0.1)


def _floor(ratio: Node, rate: Node, base: Any) -> float:
    """The factor that the learning rate falls to: as a ratio, or as a rate."""
    found, least = number(ratio.take()), number(rate.take())
    if found is not None:
        return float(found)
    return float(least / base) if least and base else 0.0


def _schedulers(target: Target, node: Node) -> None:
    """3.x: a list of schedulers."""
    if not node.given:
        return
    warm, main = False, False
    for one in node.items():
        kind = one.type.removesuffix("LR").removesuffix("Param" + "Scheduler")
        first = not warm and not main
        if kind == "Linear" and first and one.at("start_factor").given and not one.at("by_epoch").take(True):
            warm = True
            _linear_warm_up(target, one)
        elif kind in ("MultiStep", "CosineAnnealing", "Poly") and not main:
            main = True
            _main(target, one, kind)
        elif kind == "Constant" and not main and number(one.at("factor").value) == 1:
            main = True
            one.take()
            target.put(RATE, {"type": "constant"}, one)
        else:
            one.refuse(f"scheduler {shown(one.value)} {NO_COUNTERPART}, or not in this place")
        one.finish()
    if not warm:
        target.put("schedule.warmup_steps", 0, node)
    if not main:
        target.put(RATE, {"type": "constant"}, node)


def _linear_warm_up(target: Target, one: Node) -> None:
    one.expect("begin", 0)
    one.expect("end_factor", 1.0)
    target.copy_number("schedule.warmup_factor", one.at("start_factor"), 1 / 3)
    target.copy("schedule.warmup_steps", one.at("end"), 0)


def _main(target: Target, one: Node, kind: str) -> None:
    by, base = "epoch" if one.at("by_epoch").take(True) else "step", target.get("optimizer.lr")
    per_step = one.at("convert_to_iter_based").take(False)
    if kind == "MultiStep":
        found = [int(v) for v in numbers(one.at("milestones").take()) or ()]
        gamma = one.at("gamma").number(0.1)
        target.put(RATE, {"type": "step", "milestones": found, "gamma": gamma, "by": by}, one.at("milestones"))
        one.expect("begin", 0)
        one.ignore("end")
        return
    begin = one.at("begin")
    if begin.take(0):
        begin.refuse(f"{begin.value}; here the curve covers the whole run, with the warm-up")
    one.ignore("T_max", "end")
    floor = _floor(one.at("eta_min_ratio"), one.at("eta_min"), base)
    made: dict[str, Any] = {"floor": floor, "by": "step" if per_step else by}
    if kind == "Poly":
        target.put(RATE, {"type": "polynomial", "power": one.at("power").number(1.0), **made}, one.at("type"))
    else:
        target.put(RATE, {"type": "cosine", **made}, one.at("type"))


def _seed(target: Target, root: Node) -> None:
    seed = root.first("randomness.seed", "seed")
    if whole(seed.take()) is not None:
        target.put("schedule.seed", seed.value, seed)
    root.at("randomness").ignore("diff_rank_seed")
    root.expect("randomness.deterministic", False, why="deterministic algorithms are chosen by torch's own settings")


# Evaluation and hooks

_METRICS = {"bbox": "box", "segm": "mask", "proposal": "proposal", "proposal_fast": "proposal"}


def _evaluation(target: Target, root: Node, *, modern: bool) -> None:
    node = root.at("val_evaluator") if modern else root.at("evaluation")
    for one in node.items():
        kind = one.type
        one.ignore("ann_file", "format_only", "backend_args", "proposal_nums")
        if kind == "VOCMetric" or (not modern and one.at("metric").value == "mAP"):
            one.ignore("metric")
            metric = "voc_map" if one.at("eval_mode").take("11points") == "area" else "voc_map11"
            if target.get("evaluation.evaluators[0].type") != "voc":
                target.put("evaluation", {"evaluators": [{"type": "voc"}], "best": metric}, one)
        elif kind in ("CocoMetric", ""):
            _kinds(target, one.at("metric"))
        else:
            one.refuse(f"metric {shown(one.value)} {NO_COUNTERPART}; the recipe's are kept")
        best = one.at("save_best")
        if best.given:
            best.refuse("the best checkpoint is kept by evaluation.best, here " + str(target.get("evaluation.best")))
        target.copy_given("evaluation.every_epochs", one.at("interval"))
        one.expect("classwise", False, why="AP of each class is shown by det-core analyze")
    root.ignore("test_evaluator")
    root.at("test_cfg").at("type").take()


def _kinds(target: Target, node: Node) -> None:
    words = [str(word) for word in parts(node.take())]
    kinds = list(dict.fromkeys(_METRICS[word] for word in words if word in _METRICS))
    for word in words:
        if word not in _METRICS:
            node.refuse(f"{word!r} {NO_COUNTERPART}, only {', '.join(_METRICS)}")
    if kinds and target.get("evaluation.evaluators[0].type") == "coco":
        target.put("evaluation.evaluators[0].kinds", kinds, node)


def _hooks(target: Target, root: Node) -> None:
    for hook in (*root.at("default_hooks").children(), *root.at("custom_hooks").items()):
        kind = hook.type
        if kind in ("EMAHook", "ExpMomentumEMAHook"):
            _ema(target, hook)
        elif kind in _USUAL_HOOKS:
            _usual_hook(hook, kind)
        elif hook.value is None:
            hook.take()
        else:
            hook.refuse(f"hook {shown(hook.value)} {NO_COUNTERPART}; write it as a hook of a plugin (docs/hooks.md)")
    checkpoints = root.at("checkpoint_config")
    checkpoints.expect("interval", 1, why="a checkpoint is written after each epoch")
    _usual_hook(checkpoints, "CheckpointHook")
    log = root.at("log_config")
    log.ignore("interval")
    for hook in log.at("hooks").items():
        if hook.type == "TextLoggerHook":
            hook.take()
        else:
            hook.refuse(
                f"logger {shown(hook.value)} {NO_COUNTERPART} in a recipe; trackers are plugins (mlflow, wandb)"
            )


def _usual_hook(hook: Node, kind: str) -> None:
    if kind == "CheckpointHook":
        hook.ignore("type", "by_epoch")
        hook.expect("interval", 1, why="a checkpoint is written after each epoch; --save-every adds others")
        hook.expect("max_keep_ckpts", -1, why="the last and the best checkpoint are kept")
        hook.expect("save_best", None, why="the best checkpoint is kept by evaluation.best")
        hook.ledger.list_unused(hook)
    hook.take()


def _ema(target: Target, hook: Node) -> None:
    momentum = hook.at("momentum")
    value = number(momentum.take(0.0002))
    hook.ignore("update_buffers", "priority", "ema_type", "strict_load", "resume_from", "warm_up")
    if hook.type == "ExpMomentumEMAHook" or "ExpMomentum" in str(hook.at("ema_type").value):
        hook.note("the decay of the moving average rises from 0; here it is constant")
    if value is not None:
        target.put("schedule.ema_decay", 1 - value, momentum)
    hook.ledger.list_unused(hook)


def _run(root: Node) -> None:
    """What is given to a command, and what has no effect on training."""
    weights = root.at("load_from")
    file = weights.take()
    if file is not None:
        weights.refuse(
            f"weights are not part of a recipe: det-core import-weights {file} --from mmdet -o init.safetensors, "
            "then det-core train --init init.safetensors"
        )
    for name in ("resume_from", "resume"):
        node = root.at(name)
        if node.take():
            node.refuse("runs of another project cannot be resumed; use their weights with --init")
    folder = root.at("work_dir")
    if folder.given:
        folder.refuse(f"the run folder is an option: det-core train --work-dir {folder.value}")
    flow = root.at("workflow")
    if flow.take() is not None and len(parts(flow.value)) > 1:
        flow.refuse("losses of the validation data are computed with evaluation.losses")
    tta = root.at("tta_pipeline")
    if tta.given:
        tta.refuse(f"test-time augmentation is an option of the command: det-core test {tta_options(tta)}".rstrip())
    root.ignore("tta_model")
    custom = root.at("custom_imports")
    if custom.given:
        custom.refuse("modules of the configuration are not imported; write their parts as a plugin (docs/hooks.md)")
    root.ignore(*_RUNTIME)
