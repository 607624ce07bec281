"""Files for people and sites around the code: citation, forms for issues, security, steps of a release."""

from __future__ import annotations

import ast
import fnmatch
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from distributions import Built

ROOT = Path(__file__).resolve().parents[1]
FORMS = sorted(f for f in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml") if f.name != "config.yml")
FIELDS = {
    "markdown": {"value"},
    "input": {"label", "description", "placeholder", "value"},
    "textarea": {"label", "description", "placeholder", "value", "render"},
    "dropdown": {"label", "description", "multiple", "options", "default"},
    "checkboxes": {"label", "description", "options"},
}


def load(path: Path) -> dict:
    return yaml.safe_load(path.read_text(encoding="utf8"))


# CITATION.cff


def test_the_citation_has_the_fields_of_its_format() -> None:
    data = load(ROOT / "CITATION.cff")
    assert data["cff-version"] == "1.2.0"
    assert {"message", "title", "authors", "version", "license", "type"} <= data.keys()
    known = {"cff-version", "message", "type", "title", "abstract", "authors", "license", "keywords", "version"}
    assert data.keys() <= known | {"repository-code"}
    assert data["type"] == "software"
    assert data["license"] == "Apache-2.0"
    assert isinstance(data["version"], str)
    assert all(set(author) == {"name"} for author in data["authors"])  # an entity, not a person
    assert len(data["keywords"]) == len(set(data["keywords"]))


# Forms for issues


def problems_of_form(form: dict) -> list[str]:
    """What the site would refuse in a form."""
    found = [f"{key} is missing" for key in ("name", "description", "body") if not form.get(key)]
    found += [f"unknown key {key}" for key in form.keys() - {"name", "description", "labels", "body", "title"}]
    ids = [item["id"] for item in form["body"] if "id" in item]
    found += [] if len(set(ids)) == len(ids) else ["an id occurs twice"]
    if all(item["type"] == "markdown" for item in form["body"]):
        found.append("there is no field")
    for item in form["body"]:
        found += _problems_of_field(item)
    return found


def _problems_of_field(item: dict) -> list[str]:
    kind, attributes = item["type"], item.get("attributes", {})
    if kind not in FIELDS:
        return [f"unknown type {kind}"]
    found = [f"{kind}: unknown attribute {key}" for key in attributes.keys() - FIELDS[kind]]
    needed = {"markdown": ["value"], "dropdown": ["label", "options"], "checkboxes": ["label", "options"]}
    found += [f"{kind}: {key} is missing" for key in needed.get(kind, ["label"]) if not attributes.get(key)]
    if kind != "markdown" and not re.fullmatch(r"[a-z_-]+", item.get("id", "")):
        found.append(f"{kind}: bad id")
    if kind == "checkboxes" and not all(set(option) <= {"label", "required"} for option in attributes["options"]):
        found.append("checkboxes: bad option")
    if kind == "dropdown" and len(set(attributes["options"])) < len(attributes["options"]):
        found.append("dropdown: an option occurs twice")
    return found + [f"{kind}: unknown key {key}" for key in item.keys() - {"type", "id", "attributes", "validations"}]


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.name)
def test_a_form_has_the_shape_that_the_site_reads(path: Path) -> None:
    assert problems_of_form(load(path)) == []


def test_wrong_forms_are_found() -> None:
    form = {"name": "x", "description": "y", "body": [{"type": "markdown", "attributes": {"value": "z"}}]}
    assert problems_of_form(form) == ["there is no field"]
    form["body"] += [{"type": "input", "id": "a", "attributes": {}}, {"type": "text", "id": "a"}]
    assert problems_of_form(form) == ["an id occurs twice", "input: label is missing", "unknown type text"]


def test_the_forms_ask_for_what_is_needed() -> None:
    assert {path.stem for path in FORMS} == {"bug", "wrong_result", "question"}
    for name, needed in (("bug", {"what", "how", "doctor"}), ("wrong_result", {"reference", "numbers", "doctor"})):
        fields = {item.get("id"): item for item in load(ROOT / ".github/ISSUE_TEMPLATE" / f"{name}.yml")["body"]}
        assert all(fields[field]["validations"]["required"] for field in needed)
        assert "det-core doctor" in fields["doctor"]["attributes"]["label"]
    assert load(ROOT / ".github/ISSUE_TEMPLATE/config.yml") == {"blank_issues_enabled": False}
    names = {load(path)["name"] for path in FORMS}
    assert set(re.findall(r'the form "([^"]+)"', FORMS[0].read_text(encoding="utf8"))) <= names


# SECURITY.md


def calls_that_run_files(source: str) -> list[str]:
    """Calls that run code from what they read: unpickling, YAML with tags, `eval`, `torch.load` of anything."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name, text = ast.unparse(node.func), ast.unparse(node)
        if name == "torch.load" and "weights_only=True" not in text:
            found.append(text)
        if name in ("eval", "exec", "yaml.unsafe_load", "yaml.full_load", "pickle.load", "pickle.Unpickler"):
            found.append(text)
        if name == "yaml.load" and "SafeLoader" not in text:
            found.append(text)
        if name == "pickle.loads" and not text.startswith("pickle.loads(pickle.dumps("):
            found.append(text)
    return found


def test_what_security_says_of_reading_files_holds() -> None:
    assert "private vulnerability report" in (ROOT / "SECURITY.md").read_text(encoding="utf8")
    sources = [f for p in ("ops", "core", "plugins/*") for f in ROOT.glob(f"{p}/src/**/*.py")]
    assert len(sources) > 300
    found = {file: calls_that_run_files(file.read_text(encoding="utf8")) for file in sources}
    assert {file: calls for file, calls in found.items() if calls} == {}


@pytest.mark.parametrize(
    ("line", "bad"),
    [
        ("torch.load(file)", True),
        ("torch.load(file, weights_only=False)", True),
        ("torch.load(file, map_location='cpu', weights_only=True)", False),
        ("yaml.load(text)", True),
        ("yaml.load(text, Loader=CSafeLoader)", False),
        ("pickle.loads(data)", True),
        ("pickle.loads(pickle.dumps(part))", False),
        ("model.eval()", False),
        ("eval(text)", True),
    ],
)
def test_calls_that_run_files_are_found(line: str, bad: bool) -> None:
    assert bool(calls_that_run_files(line)) == bad


# docs/releasing.md

PAGE = ROOT / "docs" / "releasing.md"
COMMANDS = [
    line
    for block in re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(encoding="utf8"), re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
]
# Run for real in a copy. The others take long, need a network, or are run by other tests: they are planned or parsed.
REAL = ("git ", "make version", "make changelog")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of its own with the files of this one."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listed.returncode or shutil.which("make") is None:
        pytest.skip("requires a git checkout, and make")
    copy = tmp_path_factory.mktemp("checkout")
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
    identity = ("-c", "user.name=A", "-c", "user.email=a@example.org")
    for words in (["init", "--quiet"], ["add", "--all"], [*identity, "commit", "--quiet", "--message", "All"]):
        subprocess.run(["git", *words], cwd=copy, check=True)
    return copy


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    words = shlex.split(command)
    if words[0] == "make":
        words.append(f"PYTHON={sys.executable}")
        if not command.startswith(REAL):
            words.append("--dry-run")
    variables = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS", "GIT_"))}
    who = {f"GIT_{role}_{what}": "a@example.org" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    return subprocess.run(
        words, cwd=folder, env={**variables, **who}, capture_output=True, text=True, check=False, timeout=120
    )


def test_the_steps_of_a_release_can_be_followed(checkout: Path) -> None:
    """In order, in a copy: short commands are run, `make` is asked for its plan, the upload is parsed."""
    shown = {}
    for command in COMMANDS:
        if not command.startswith(".venv/bin/"):
            done = run(command.replace("0.2.0", "9.2.0"), checkout)
            assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
            shown[command] = done.stdout
    assert shown["git status --short"] == ""
    assert shown["make version"] == "9.2.0\n"
    assert shown["make changelog-preview"].startswith("## 9.2.0 (")
    assert (checkout / "CHANGELOG.md").read_text(encoding="utf8").startswith("# Changes\n\n## 9.2.0 (")
    assert [f.name for f in (checkout / "changes").iterdir()] == ["README.md"]
    assert '--torch "2.11.*"' in shown['make check-dist TORCH="2.11.*"']
    assert "--kernels --no-compiler" in shown['make check-dist OPTIONS="--kernels --no-compiler"']
    assert f'--python "{sys.executable}"' in shown["make check-dist"]
    planned = subprocess.run(["make", "-n", "check-dist"], cwd=checkout, capture_output=True, text=True, check=True)
    assert "tools/check_dist.py" in planned.stdout
    assert "--python" not in planned.stdout  # the Python of the environment
    assert "plugins/htc/README.md" in shown['git grep --name-only "not published yet"'].splitlines()
    tags = subprocess.run(["git", "tag"], cwd=checkout, capture_output=True, text=True, check=True)
    assert tags.stdout == "v9.2.0\n"
    left = subprocess.run(["git", "status", "--short"], cwd=checkout, capture_output=True, text=True, check=True)
    assert left.stdout == ""


def test_the_upload_takes_everything_but_wheels_for_one_platform(built: Built) -> None:
    command, of_kernels = [line for line in COMMANDS if line.startswith(".venv/bin/twine upload ")]
    patterns = shlex.split(command)[2:]
    names = sorted(f"dist/{file.name}" for file in built.dist.iterdir())
    taken = [n for n in names if any(fnmatch.fnmatch(n, p) for p in patterns)]
    assert taken == names
    kernels = "dist/det_ops_kernels-0.1.0-py3-none-{}_x86_64.whl"
    assert not any(fnmatch.fnmatch(kernels.format("linux"), p) for p in patterns)
    (repair,) = [line for line in COMMANDS if line.startswith(".venv/bin/auditwheel repair ")]
    for line, tag in ((repair, "linux"), (of_kernels, "manylinux_2_34")):
        assert fnmatch.fnmatch(kernels.format(tag), shlex.split(line)[-1])
    assert not fnmatch.fnmatch(kernels.format("linux"), shlex.split(of_kernels)[-1])  # an index refuses it


def test_every_target_of_the_page_is_one_of_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf8"), re.MULTILINE))
    named = set(re.findall(r"`?\bmake ([a-z-]+)\b", PAGE.read_text(encoding="utf8")))
    assert {"version", "changelog", "dist", "kernels", "check-dist"} <= named
    assert named <= targets, named - targets
