"""The command line's frame: help, errors, exit statuses, and which verbs there are."""

from __future__ import annotations

import errno
import importlib
import logging
import os
import subprocess
import sys

import click
import pytest

from det_core import __version__
from det_core.cli.main import VERBS, run
from det_core.errors import DetError
from det_core.offers import CommandEntry
from det_core.testing.isolated_plugins import entry_point, isolated_manager, make_plugin


@pytest.mark.parametrize("arguments", [["--help"], ["-h"]])
def test_help_lists_every_verb(arguments, capsys):
    assert run(arguments) == 0
    out = capsys.readouterr().out
    for verb, text in VERBS.items():
        assert f"  {verb} " in out
        assert text in out


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_a_command_and_help(verb, capsys):
    command = importlib.import_module(f"det_core.cli.{verb.replace('-', '_')}").command
    assert isinstance(command, click.Command)
    assert command.name == verb
    assert run([verb, "--help"]) == 0
    assert command.help.splitlines()[0] in " ".join(capsys.readouterr().out.split())


def test_version(capsys):
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.strip().endswith(__version__)


def test_an_unknown_verb_gets_the_nearest(capsys):
    assert run(["trian"]) == 2
    assert "no command 'trian'; did you mean \"train\"?" in capsys.readouterr().err
    assert run(["xyzzy"]) == 2
    assert "no command 'xyzzy'; available: train, test" in capsys.readouterr().err


def greeting_plugin(load, name="greet"):
    return make_plugin("hello", det_commands=lambda: [CommandEntry(name=name, help="Say hello.", load=load)])


def test_a_command_of_a_plugin_is_listed_and_runs(capsys, tmp_path):
    @click.command(name="greet")
    @click.argument("name")
    def greet(name: str) -> None:
        click.echo(f"hello {name}")

    with isolated_manager(greeting_plugin(lambda: greet)):
        assert run(["--help"]) == 0
        assert "  greet           Say hello." in capsys.readouterr().out
        (tmp_path / "parts_of_greet.py").write_text("from det_core.hookspecs import provides\ndet_necks = provides()\n")
        assert run(["greet", "you", "--plugin-file", str(tmp_path / "parts_of_greet.py")]) == 0
        assert capsys.readouterr().out == "hello you\n"
        assert run(["gret"]) == 2
        assert "no command 'gret'; did you mean \"greet\"?" in capsys.readouterr().err


def test_a_plugin_file_may_add_a_command(capsys, tmp_path):
    file = tmp_path / "command_of_a_file.py"
    file.write_text(
        "import click\nfrom det_core.hookspecs import provides\nfrom det_core.offers import CommandEntry\n"
        "greet = click.Command('greet', callback=lambda: click.echo('hello'))\n"
        "det_commands = provides(CommandEntry(name='greet', help='Say hello.', load=lambda: greet))\n"
    )
    with isolated_manager():
        assert run(["--plugin-file", str(file), "greet"]) == 0
    assert capsys.readouterr().out == "hello\n"


def test_a_command_of_a_plugin_that_fails_leaves_the_others(capsys):
    def fail() -> click.Command:
        raise ImportError("no module named 'cloud'")

    with isolated_manager(greeting_plugin(fail), make_plugin("broken", det_commands=fail)):
        assert run(["--help"]) == 0
        capsys.readouterr()
        assert run(["greet"]) == 1
        assert capsys.readouterr().err == (
            "error: command 'greet' of det-plugin-hello 1.0 cannot be loaded: ImportError: no module named 'cloud'\n"
        )
        assert run(["recipes", "--help"]) == 0
        with pytest.raises(DetError, match="cannot be loaded"):
            run(["--debug", "greet"])


def test_a_command_of_core_is_not_replaced(capsys):
    with isolated_manager(greeting_plugin(lambda: 1 / 0, "plugins")):
        assert run(["plugins"]) == 0
        assert "command: plugins" in capsys.readouterr().out


def test_a_command_whose_plugin_is_not_installed_says_what_to_install(capsys):
    with isolated_manager():
        assert run(["push", "runs/mine", "me/mine"]) == 2
    assert (
        "no command 'push'; det-plugin-hub provides it: pip install ./plugins/hub (from a checkout of det)"
        in capsys.readouterr().err
    )


def test_an_unknown_option_gets_the_nearest(capsys):
    assert run(["recipes", "--modle", "x"]) == 2
    assert "No such option '--modle'. Did you mean '--model'?" in capsys.readouterr().err.replace(
        ": --", " '--"
    ).replace("'--modle Did", "'--modle'. Did")


def fails_with(error: BaseException):
    @click.command(name="doctor")
    def failing() -> None:
        raise error

    return failing


def test_a_users_mistake_is_a_line_without_a_traceback(monkeypatch, capsys):
    from det_core.cli import doctor

    monkeypatch.setattr(doctor, "command", fails_with(DetError("x.json: no such file")))
    assert run(["doctor"]) == 1
    assert capsys.readouterr() == ("", "error: x.json: no such file\n")
    with pytest.raises(DetError, match="no such file"):
        run(["--debug", "doctor"])


def test_an_interruption_has_its_own_status(monkeypatch, capsys):
    from det_core.cli import doctor

    monkeypatch.setattr(doctor, "command", fails_with(KeyboardInterrupt()))
    assert run(["doctor"]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_a_bug_keeps_its_traceback(monkeypatch):
    from det_core.cli import doctor

    monkeypatch.setattr(doctor, "command", fails_with(ZeroDivisionError("a bug")))
    with pytest.raises(ZeroDivisionError):
        run(["doctor"])


def test_strict_plugins_stop_at_any_failure(capsys):
    with isolated_manager(entry_point(ImportError("gone"), "sick")):
        assert run(["--strict-plugins", "plugins"]) == 1
        assert "error: these plugins failed to load (--strict-plugins is set):" in capsys.readouterr().err
        assert run(["plugins"]) == 0
    with isolated_manager(make_plugin("fine")):
        assert run(["--strict-plugins", "plugins"]) == 0


def test_python_m_runs_the_same_and_debug_shows_the_traceback():
    command = [sys.executable, "-m", "det_core", "recipes", "show", "no/such"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: no recipe 'no/such'")
    assert "Traceback" not in done.stderr
    done = subprocess.run([*command[:3], "--debug", *command[3:]], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_warnings_are_printed_but_for_skipped_samples_which_verbs_list(monkeypatch, capsys):
    @click.command()
    def command() -> None:
        logging.getLogger("det_core.somewhere").warning("mind the %s", "gap")
        logging.getLogger("det_core.skipped").warning("skipped a.png")
        logging.getLogger("det_core.somewhere").info("a detail")

    monkeypatch.setattr(importlib.import_module("det_core.cli.plugins"), "command", command)
    assert run(["plugins"]) == 0
    assert capsys.readouterr().err == "warning: mind the gap\n"


def test_an_error_of_the_system_without_a_path_is_one_line(monkeypatch, capsys):
    @click.command()
    def command() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(importlib.import_module("det_core.cli.plugins"), "command", command)
    assert run(["plugins"]) == 1
    assert capsys.readouterr().err == "error: No space left on device\n"
