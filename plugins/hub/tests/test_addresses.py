"""`hf://OWNER/NAME` wherever a checkpoint is taken, and what is said of those that cannot be."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import huggingface_hub.constants
import pytest
from PIL import Image
from stand_in_hub import TOKEN, StandInHub

import det_core
from det_core import DetError
from det_plugin_hub import HubAddress, HubError, push
from det_plugin_hub.download import fetch


def test_addresses_are_read() -> None:
    assert HubAddress.parse("hf://me/cats") == HubAddress("me/cats")
    assert HubAddress.parse("hf://me/cats@refs/pr/1") == HubAddress("me/cats", "refs/pr/1")
    assert str(HubAddress("me/cats", "v1")) == "hf://me/cats@v1"


@pytest.mark.parametrize("address", ["hf://me/cats@", "hf://cats", "hf://me/cats/model.safetensors", "me/cats"])
def test_an_address_that_is_none(address: str) -> None:
    with pytest.raises(HubError, match=f"^{re.escape(address)}: .*expected (hf://)?OWNER/NAME"):
        HubAddress.parse(address)


def test_only_the_weights_are_downloaded_and_once(hub: StandInHub, run: Path) -> None:
    push(run, "me/cats")
    hub.requests.clear()
    first = fetch("hf://me/cats")
    second = det_core.weights_file(Path("hf://me/cats"))  # of which a Path leaves hf:/me/cats
    assert first == second
    assert {request.partition(" ")[2] for request in hub.requests} == {"/me/cats/resolve/main/model.safetensors"}
    assert sum(r.startswith("GET") for r in hub.requests) == 1


def test_a_new_push_is_seen_and_a_commit_stays(hub: StandInHub, run: Path) -> None:
    push(run, "me/cats")
    old, commit = fetch("hf://me/cats"), hub.repositories["me/cats"].branches["main"][-1].sha
    content = hub.files("me/cats")["model.safetensors"]
    hub.commit(hub.repositories["me/cats"], "main", {"model.safetensors": content + b""}, "again")
    assert fetch("hf://me/cats").parent.name != old.parent.name
    assert fetch(f"hf://me/cats@{commit}") == old


def test_offline_what_is_cached_works(hub: StandInHub, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    push(run, "me/cats")
    file = fetch("hf://me/cats")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    hub.requests.clear()
    assert fetch("hf://me/cats") == file
    with pytest.raises(HubError, match="^hf://me/dogs: it is not in the local cache, and HF_HUB_OFFLINE is set"):
        fetch("hf://me/dogs")
    assert hub.requests == []


@pytest.mark.usefixtures("impatient")
def test_without_a_network_what_is_cached_works(hub: StandInHub, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    push(run, "me/cats")
    file = fetch("hf://me/cats")
    nowhere = "http://127.0.0.1:9"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", nowhere)
    template = nowhere + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    assert fetch("hf://me/cats") == file
    refused = "^hf://me/dogs: no connection to http://127.0.0.1:9, and it is not in the local cache"
    with pytest.raises(HubError, match=refused):
        fetch("hf://me/dogs")
    with pytest.raises(HubError, match="^hf://me/dogs: no connection to http://127.0.0.1:9"):
        push(run, "me/dogs")


@pytest.mark.usefixtures("signed_out")
def test_private_missing_and_gated_repositories(hub: StandInHub) -> None:
    hub.add("me/secret", {"model.safetensors": b""}, private=True)
    hub.add("me/gated", {"model.safetensors": b""}, gated=True)
    for name in ("me/secret", "me/nothing"):
        with pytest.raises(HubError, match=f"^hf://{name}: there is no such repository, or it is private; .*HF_TOKEN"):
            fetch(f"hf://{name}")
    with pytest.raises(HubError, match="^hf://me/gated: its owner grants access on request"):
        fetch("hf://me/gated")


def test_a_revision_that_is_not_there(hub: StandInHub) -> None:
    hub.add("me/cats", {"model.safetensors": b""})
    with pytest.raises(HubError, match="^hf://me/cats@v9: the repository has no such branch, tag or commit"):
        fetch("hf://me/cats@v9")


def test_nothing_pickled_is_downloaded(hub: StandInHub) -> None:
    hub.add("me/old", {"pytorch_model.bin": b"pickled", "README.md": b""})
    refused = (
        r"^hf://me/old: has no model.safetensors \(found README.md, pytorch_model.bin\); .* nothing that is pickled"
    )
    with pytest.raises(HubError, match=refused):
        fetch("hf://me/old")
    assert not any("pytorch_model" in request for request in hub.requests)


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"\x80\x04pickled", "is not a readable safetensors file"),
        (b"\x02\0\0\0\0\0\0\0{}", "is not a checkpoint of det"),
    ],
)
def test_a_file_of_another_kind_is_refused(hub: StandInHub, content: bytes, error: str) -> None:
    hub.add("me/other", {"model.safetensors": content})
    with pytest.raises(HubError, match=f"^hf://me/other: model.safetensors {error}"):
        fetch("hf://me/other")


def test_training_starts_from_an_address(hub: StandInHub, run: Path, tmp_path: Path) -> None:
    push(run, "me/cats")
    recipe = det_core.read_header(det_core.weights_file(run)).recipe
    result = det_core.train(recipe, work_dir=tmp_path / "new", init="hf://me/cats", max_steps=1, quiet=True)
    assert result.step == 1
    with pytest.raises(DetError, match="there is no such repository"):
        det_core.train(recipe, work_dir=tmp_path / "other", init="hf://me/nothing", max_steps=1, quiet=True)


@pytest.mark.slow
def test_the_command_line_with_the_variables_that_users_set(hub: StandInHub, run: Path, tmp_path: Path) -> None:
    """In processes of their own, with an empty cache: push, then predict."""
    Image.new("RGB", (64, 48), "red").save(tmp_path / "red.png")
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
    environment |= {"HF_TOKEN": TOKEN, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": ""}

    def det(*arguments: str) -> str:
        command = [sys.executable, "-m", "det_core", *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "hf://me/cats" in det("push", str(run), "me/cats")
    predict = ("predict", "--checkpoint", "hf://me/cats", "--device", "cpu", str(tmp_path / "red.png"), "--out")
    det(*predict, str(tmp_path / "out"))
    (line,) = (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()
    assert len(json.loads(line)["detections"]) == 5
