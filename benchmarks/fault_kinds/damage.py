"""Damaged files of run folders."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from fault_kinds.children import Child, Found, Sizes, command
from fault_kinds.runs import Outcome, outcome, to_end, train

WAYS = ("flipped", "flipped", "flipped", "cut", "emptied", "zeroed", "longer", "removed", "folder")
BEFORE, AFTER = 3, 4  # steps of the run that is damaged, and of what goes on from it


def damage(sizes: Sizes) -> Iterator[Found]:
    """Files of a run folder damaged one at a time: resuming refuses them, or goes on as if they were whole."""
    failures, ends = [], Counter[str]()
    with tempfile.TemporaryDirectory() as name:
        whole, expected, run = (Path(name, part) for part in ("whole", "expected", "run"))
        problem = to_end(whole, "--max-steps", BEFORE)
        shutil.copytree(whole, expected)
        problem = problem or to_end(expected, "--max-steps", AFTER)
        if problem:
            yield "damaged files", 1, [f"the undisturbed run: {problem}"]
            return
        wanted = _weights(expected)
        files = sorted(p.relative_to(whole) for p in whole.rglob("*") if p.is_file() and p.stat().st_size)
        for number in range(sizes.count):
            rng = random.Random(sizes.seed + number)
            file = rng.choice(files)
            shutil.rmtree(run, ignore_errors=True)
            shutil.copytree(whole, run)
            how = spoil(run / file, rng)
            end = _end(run, wanted, with_recipe=rng.random() < 0.5)
            ends[end.partition(":")[0]] += 1
            if end not in ("refused", "harmless"):
                failures.append(f"seed {sizes.seed + number}: {file} {how}: {end}")
    parts = ", ".join(f"{count} {end}" for end, count in sorted(ends.items()))
    yield f"damaged files of a run folder ({parts})", sizes.count, failures


def spoil(path: Path, rng: random.Random) -> str:
    """Damage a file; returns how."""
    content, how = bytearray(path.read_bytes()), rng.choice(WAYS)
    where = rng.randrange(len(content))
    if how == "flipped":
        content[where] ^= 1 << rng.randrange(8)
    elif how in ("cut", "emptied"):
        del content[where if how == "cut" else 0 :]
    elif how == "zeroed":
        content[where : where + 512] = bytes(len(content[where : where + 512]))
    elif how == "longer":
        content += rng.randbytes(rng.randint(1, 100))
    else:
        path.unlink()
        if how == "folder":
            path.mkdir()
        return how
    path.write_bytes(content)
    return how


def _end(run: Path, wanted: Outcome, *, with_recipe: bool) -> str:
    """How resuming ends: `refused`, `harmless`, or what is wrong."""
    more = ("--resume", "--max-steps", AFTER)
    call = train(run, *more) if with_recipe else command("train", "--work-dir", run, "--save-every", 1, *more)
    child = Child(call, run.with_name("run.out"))
    status = child.end()
    if status == 1 and child.errors.startswith("error: ") and "Traceback" not in child.errors:
        return "refused"
    if status:
        return f"status {status}: {child.errors[-600:]}"
    try:
        return "harmless" if _weights(run) == wanted else "other weights: after one more step"
    except Exception as error:
        return f"no weights: {type(error).__name__}: {error}"


def _weights(run: Path) -> Outcome:
    """All of a checkpoint, without the metrics, of which a damaged line may be missing."""
    return {name: value for name, value in outcome(run, AFTER).items() if name not in ("metrics", "best")}
