"""The plugin manager: finds, checks each plugin on its own, refuses clashes, and survives whatever a plugin does."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path
from typing import ClassVar

import click
import pluggy
import pytest
from attrs import frozen

from det_core import hookspecs, known
from det_core.errors import DetError, PluginError, nearest
from det_core.hookspecs import hookimpl
from det_core.offers import CheckpointSource, CommandEntry, RecipeEntry
from det_core.plugins import PluginManager, plugin_manager
from det_core.slots import SLOTS, BackboneConfig, NeckConfig
from det_core.specs import FeatureSpec
from det_core.testing.isolated_plugins import entry_point, isolated_manager, make_plugin, stub_config


@stub_config
class Tiny(BackboneConfig):
    """A backbone."""

    type: ClassVar[str] = "tiny"

    def feature_spec(self) -> FeatureSpec:
        return FeatureSpec(channels=(8,), strides=(4,))


@stub_config
class OtherTiny(BackboneConfig):
    """A backbone of the same name."""

    type: ClassVar[str] = "tiny"


@stub_config
class Small(BackboneConfig):
    """Another backbone."""

    type: ClassVar[str] = "small"


@stub_config
class Nameless(BackboneConfig):
    """Forgets its type."""


@stub_config
class Inheriting(Small):
    """Forgets a type of its own."""


class Undecorated(BackboneConfig):
    type: ClassVar[str] = "undecorated"


@stub_config
class Slotless(NeckConfig):
    """Names a slot that does not exist."""

    slot: ClassVar[str] = "neckk"
    type: ClassVar[str] = "slotless"


@stub_config
class SomeNeck(NeckConfig):
    """A neck."""

    type: ClassVar[str] = "some_neck"


def state_of(manager: PluginManager, name: str):
    return next(p for p in manager.plugins if p.name == name)


GOOD = make_plugin("good", det_backbones=lambda: [Small])


def test_a_component_is_found_with_its_provider():
    with isolated_manager(make_plugin("tiny", det_backbones=lambda: [Tiny])) as manager:
        assert plugin_manager() is manager
        assert manager.component("backbone", "tiny") is Tiny
        assert manager.types("backbone") == ["tiny"]
        assert manager.provider(Tiny).label == "det-plugin-tiny 1.0"
        assert manager.provider(OtherTiny) is None
        assert manager.versions() == {"det-plugin-tiny": "1.0"}
        assert manager.plugin("tiny") is manager.plugin("det-plugin-tiny")
        assert manager.plugins[0].state == "ok"
        assert manager.plugins[0].provides == {"backbone": ["tiny"]}
    assert plugin_manager() is not manager


@pytest.mark.parametrize("error", [ImportError("no module named 'gone'"), RuntimeError("boom"), SystemExit(3)])
def test_a_plugin_that_raises_on_import_costs_only_itself(error):
    with isolated_manager(entry_point(error, "broken", "det-plugin-broken", "2.0"), GOOD) as manager:
        broken = state_of(manager, "broken")
        assert broken.state == "failed"
        assert broken.errors == [f"import: {type(error).__name__}: {error}"]
        assert "Traceback" in broken.trace
        assert manager.component("backbone", "small") is Small
        with pytest.raises(PluginError, match=r"plugin 'broken' cannot be used: import: "):
            manager.plugin("broken")
        with pytest.raises(PluginError, match=r"plugins that failed and might provide it: det-plugin-broken 2\.0 \(im"):
            manager.component("backbone", "nowhere")


def test_a_hook_that_raises_costs_its_plugin_that_hook():
    def fails():
        raise ValueError("no necks today")

    with isolated_manager(make_plugin("half", det_backbones=lambda: [Tiny], det_necks=fails), GOOD) as manager:
        half = state_of(manager, "half")
        assert half.state == "partly"
        assert half.errors == ["det_necks: ValueError: no necks today"]
        assert manager.types("backbone") == ["small", "tiny"]


def test_a_misspelled_hook_disables_its_plugin_and_names_the_nearest():
    class Misspelled:
        @hookimpl
        def det_backbone(self):
            return [Tiny]

    with isolated_manager(entry_point(Misspelled(), "wrong"), GOOD) as manager:
        wrong = state_of(manager, "wrong")
        assert wrong.state == "failed"
        assert "unknown hook 'det_backbone'" in wrong.errors[0]
        assert 'did you mean "det_backbones"' in wrong.errors[0]
        assert manager.types("backbone") == ["small"]


def test_a_hook_with_an_argument_that_its_spec_lacks_disables_its_plugin():
    class Asking:
        @hookimpl
        def det_step_finished(self, step, loss):
            raise AssertionError

    with isolated_manager(entry_point(Asking(), "asking"), GOOD) as manager:
        asking = state_of(manager, "asking")
        assert asking.state == "failed"
        assert "loss" in asking.errors[0]
        assert manager.types("backbone") == ["small"]
        manager.notify("det_step_finished", set(), pytest.fail, step=1, metrics={})


def test_one_module_registered_twice_is_refused_the_second_time_only():
    with isolated_manager(entry_point(GOOD, "a"), entry_point(GOOD, "b")) as manager:
        assert state_of(manager, "a").state == "ok"
        assert state_of(manager, "b").errors == [
            "registration: ValueError: det-plugin-a 1.0 has registered the same module"
        ]
        assert manager.component("backbone", "small") is Small


def test_two_components_of_one_name_are_both_refused_and_both_named():
    first = make_plugin("first", det_backbones=lambda: [Tiny, Small])
    second = make_plugin("second", det_backbones=lambda: [OtherTiny])
    with isolated_manager(first, second) as manager:
        for name in ("first", "second"):
            state = state_of(manager, name)
            assert state.state == "partly"
            assert state.errors == [
                "backbone type 'tiny' is provided by det-plugin-first 1.0 and det-plugin-second 1.0: none of them is "
                f"used; uninstall one, or switch one off with DET_PLUGINS=-{name}"
            ]
        with pytest.raises(PluginError, match="provided twice in slot backbone, by det-plugin-first 1.0 and det-pl"):
            manager.component("backbone", "tiny")
        assert manager.types("backbone") == ["small"]
    with isolated_manager(first, second, choice="-second") as manager:
        assert manager.component("backbone", "tiny") is Tiny


def test_one_name_in_two_slots_is_no_clash():
    @stub_config
    class TinyNeck(NeckConfig):
        """A neck."""

        type: ClassVar[str] = "tiny"

    with isolated_manager(make_plugin("both", det_backbones=lambda: [Tiny], det_necks=lambda: [TinyNeck])) as manager:
        assert manager.component("neck", "tiny") is TinyNeck
        assert manager.component("backbone", "tiny") is Tiny


def test_two_recipes_of_one_name_are_refused_and_both_providers_named():
    def entry() -> list[RecipeEntry]:
        return [RecipeEntry(name="a/b", make=pytest.fail)]

    with isolated_manager(make_plugin("x", det_recipes=entry), make_plugin("y", det_recipes=entry)) as manager:
        assert manager.recipes() == {}
        with pytest.raises(PluginError, match=r"recipe 'a/b' is provided by det-plugin-x 1\.0 and det-plugin-y 1\.0"):
            manager.recipe_entry("a/b")
        assert "recipe 'a/b' is provided by" in state_of(manager, "y").errors[0]


def test_weight_maps_are_found_and_refused_when_two_plugins_bring_one():
    @frozen
    class Map:
        source: str
        component: type

    def plugin(name: str):
        return make_plugin(name, det_weight_maps=lambda: [Map("mmdet", Small)])

    with isolated_manager(plugin("x")) as manager:
        assert manager.weight_map("mmdet", Small) == Map("mmdet", Small)
        assert manager.weight_map("mmdet", Tiny) is None
        assert manager.weight_map("other", Small) is None
        assert state_of(manager, "x").provides == {"weight map": ["mmdet:small"]}
    with isolated_manager(plugin("x"), plugin("y")) as manager:
        with pytest.raises(
            PluginError, match=r"the mmdet weight map of Small is provided by det-plugin-x 1\.0 and det-"
        ):
            manager.weight_map("mmdet", Small)
        assert "the mmdet weight map of Small is provided by" in state_of(manager, "x").errors[0]


@pytest.mark.parametrize(
    ("hook", "result", "message"),
    [
        ("det_backbones", ["tiny"], "returned 'tiny', which is not a configuration class"),
        ("det_backbones", [SomeNeck], "returned SomeNeck of slot 'neck'; return it from det_necks"),
        ("det_backbones", [Nameless], "Nameless has no `type` name"),
        ("det_backbones", [Inheriting], "Inheriting inherits its `type` 'small'; set a `type` in the class itself"),
        ("det_backbones", [Undecorated], "Undecorated is not decorated with det_core.settings.configclass"),
        ("det_necks", [Slotless], "Slotless.slot is 'neckk'; allowed: backbone, neck"),
        ("det_backbones", None, "TypeError: 'NoneType' object is not iterable"),
        ("det_recipes", ["a/b"], "returned 'a/b', which is not a det_core.offers.RecipeEntry"),
        ("det_weight_maps", [Tiny], "which is not a det_core.offers.WeightMap"),
    ],
)
def test_a_wrong_hook_result_is_named_and_the_rest_of_the_plugin_works(hook, result, message):
    plugin = make_plugin("odd", **{hook: lambda: result})
    with isolated_manager(plugin, GOOD) as manager:
        odd = state_of(manager, "odd")
        assert odd.state == "partly"
        assert len(odd.errors) == 1
        assert odd.errors[0].startswith(f"{hook}: TypeError: ")
        assert message in odd.errors[0]
        assert manager.types("backbone") == ["small"]


def test_a_wrong_component_does_not_cost_the_right_ones_beside_it():
    with isolated_manager(make_plugin("odd", det_backbones=lambda: [Nameless, Tiny])) as manager:
        assert manager.types("backbone") == ["tiny"]


def test_hook_wrappers_are_refused():
    class Wrapping:
        @hookimpl(wrapper=True)
        def det_backbones(self):
            return (yield)

    with isolated_manager(entry_point(Wrapping(), "wrapping"), GOOD) as manager:
        assert "hook wrappers are not supported" in state_of(manager, "wrapping").errors[0]
        assert manager.types("backbone") == ["small"]


def test_nothing_depends_on_the_order_of_loading():
    def fails():
        raise ValueError("no")

    points = [
        entry_point(make_plugin("a", det_backbones=lambda: [Tiny])),
        entry_point(make_plugin("b", det_backbones=lambda: [OtherTiny], det_losses=fails)),
        entry_point(GOOD, "c"),
        entry_point(ImportError("gone"), "d"),
    ]
    seen = []
    for order in permutations(points):
        manager = PluginManager(list(order))
        seen.append([(p.name, p.state, p.errors, p.provides) for p in manager.plugins])
    assert all(s == seen[0] for s in seen)


@pytest.mark.parametrize(
    ("choice", "loaded"),
    [
        (None, ["a", "b", "core"]),
        ("", ["core"]),
        ("a", ["a", "core"]),
        ("a, b", ["a", "b", "core"]),
        ("-a", ["b", "core"]),
        ("-a,-b", ["core"]),
        ("a,b,-b", ["a", "core"]),
    ],
)
def test_det_plugins_limits_what_is_loaded(choice, loaded):
    def never():
        raise AssertionError("a plugin that is off must not be imported")

    points = [entry_point(make_plugin(name)) for name in ("core", "a", "b")]
    points = [p if p[0] in loaded else (*p[:3], never) for p in points]
    manager = PluginManager(points, choice=choice)
    assert sorted(p.name for p in manager.plugins if p.state != "off") == loaded
    for name in {"a", "b"} - set(loaded):
        with pytest.raises(PluginError, match=f"plugin '{name}' cannot be used: DET_PLUGINS switches it off"):
            manager.plugin(name)


def test_det_plugins_is_read_from_the_environment(monkeypatch):
    from det_core import plugins

    monkeypatch.setattr(plugins, "installed_plugins", lambda: [entry_point(GOOD, "good"), entry_point(GOOD, "bad")])
    monkeypatch.setenv("DET_PLUGINS", "-bad")
    monkeypatch.setattr(plugins, "_manager", None)
    assert [(p.name, p.state) for p in plugin_manager().plugins] == [("bad", "off"), ("good", "ok")]
    assert plugin_manager() is plugin_manager()


def test_a_name_in_det_plugins_that_is_not_installed_is_pointed_out():
    manager = PluginManager([entry_point(GOOD, "good")], choice="-godo")
    assert manager.warnings() == ["DET_PLUGINS names 'godo', which is not installed; did you mean \"good\"?"]
    assert PluginManager([entry_point(GOOD, "good")], choice="good").warnings() == []


def test_strict_mode_lists_every_failure():
    points = [entry_point(ImportError("gone"), "d"), entry_point(GOOD, "good")]
    with pytest.raises(PluginError, match=r"\(--strict-plugins is set\):\n  det-plugin-d 1\.0: import: ImportErr"):
        PluginManager(points).require_all()
    PluginManager(points[1:]).require_all()


def test_a_missing_type_gets_the_nearest_names():
    with isolated_manager(GOOD) as manager:
        with pytest.raises(PluginError, match=r"unknown type 'smal' for backbone; did you mean \"small\"\?"):
            manager.component("backbone", "smal")
        with pytest.raises(PluginError, match="unknown type 'xyzzy' for backbone; installed: small"):
            manager.component("backbone", "xyzzy")
        with pytest.raises(PluginError, match="unknown type 'xyzzy' for neck; installed: none"):
            manager.component("neck", "xyzzy")


def test_names_nearly_as_close_as_the_closest_are_named_too():
    assert (
        nearest("score_treshold", ["nms_threshold", "score_threshold", "depth"]) == '; did you mean "score_threshold"?'
    )
    assert nearest("r5", ["r50", "r51", "x"]) == '; did you mean "r51" or "r50"?'
    assert nearest("xyzzy", ["abc"]) == nearest("xyzzy", []) == ""


def test_a_missing_type_of_a_known_distribution_says_how_to_get_it():
    with isolated_manager(GOOD) as manager, pytest.raises(PluginError, match=r"det-plugin-resnet provides it: pip in"):
        manager.component("backbone", "resnet")
    off = entry_point(GOOD, "resnet", "det-plugin-resnet")
    with (
        isolated_manager(off, choice="") as manager,
        pytest.raises(PluginError, match=r"det-plugin-resnet provides it, but DET_PLUGINS switches it off"),
    ):
        manager.component("backbone", "resnet")
    broken = entry_point(ImportError("gone"), "resnet", "det-plugin-resnet")
    with (
        isolated_manager(broken) as manager,
        pytest.raises(PluginError, match=r"det-plugin-resnet should provide it, but failed: import: ImportError: gone"),
    ):
        manager.component("backbone", "resnet")


def test_an_unknown_plugin_gets_the_nearest_names():
    with isolated_manager(GOOD) as manager, pytest.raises(PluginError, match=r"no plugin 'god' .*did you mean \"good"):
        manager.plugin("god")


def test_an_unknown_recipe_gets_the_nearest_names_and_the_failures():
    plugin = make_plugin("zoo", det_recipes=lambda: [RecipeEntry(name="my/r50-fpn-1x", make=pytest.fail)])
    with isolated_manager(plugin, entry_point(ImportError("gone"), "d")) as manager:
        with pytest.raises(PluginError, match=r'no recipe \'my/r50-fpn\'; did you mean "my/r50-fpn-1x"\?; plugins th'):
            manager.recipe_entry("my/r50-fpn")
        assert manager.recipe_entry("my/r50-fpn-1x").name == "my/r50-fpn-1x"


@pytest.mark.parametrize("name", ["ssd", "det-plugin-ssd"])
def test_a_known_plugin_that_is_not_installed_says_how_to_get_it(name):
    message = rf"no plugin '{name}' is installed; install it with pip install \./plugins/ssd \(from a checkout of det\)"
    with isolated_manager(GOOD, make_plugin("sdd")) as manager, pytest.raises(PluginError, match=message):
        manager.plugin(name)


def test_a_plugin_s_name_may_be_written_as_its_folder():
    message = r"no plugin 'gn_ws_dcn' is installed; install it with pip install \./plugins/gn_ws_dcn "
    with isolated_manager(GOOD) as manager, pytest.raises(PluginError, match=message):
        manager.plugin("gn_ws_dcn")


def test_a_recipe_of_a_known_distribution_says_how_to_get_it():
    """Also where another plugin has a recipe of the same model."""
    names = ("rpn/r50-fpn-1x", "htc/r50-mine-1x")
    near = make_plugin("zoo", det_recipes=lambda: [RecipeEntry(name=name, make=pytest.fail) for name in names])
    cases = {
        "htc/r50-fpn-1x": "det-plugin-htc provides the recipes of htc: pip install ./plugins/htc (from a checkout",
        "ssd/vgg16-demo": "det-plugin-ssd provides the recipes of ssd: pip install ./plugins/ssd (",
        "cascade-mask-rcnn/r50-fpn-1x": "det-plugin-cascade provides the recipes of cascade-mask-rcnn: pip install ",
    }
    with isolated_manager(near) as manager:
        for name, message in cases.items():
            with pytest.raises(PluginError) as error:
                manager.recipe_entry(name)
            assert f"no recipe {name!r}; {message}" in str(error.value)
            assert "did you mean" not in str(error.value)


def test_a_variant_of_a_known_distribution_says_how_to_get_it():
    """The model's own plugin is there, the one that adds layers is not."""
    zoo = entry_point(
        make_plugin("rcnn", det_recipes=lambda: [RecipeEntry(name="mask-rcnn/r50-fpn-2x", make=pytest.fail)]),
        "rcnn",
        "det-plugin-rcnn",
    )
    with isolated_manager(zoo) as manager:
        for name, words in {
            "mask-rcnn/r50-fpn-gn-ws-2x": "gn and ws",
            "mask-rcnn/r50-fpn-mdconv-c3-c5-1x": "mdconv",
        }.items():
            with pytest.raises(PluginError) as error:
                manager.recipe_entry(name)
            message = f"det-plugin-gn-ws-dcn provides recipes with {words}: pip install ./plugins/gn_ws_dcn ("
            assert f"no recipe {name!r}; {message}" in str(error.value)
        with pytest.raises(PluginError, match=r"did you mean \"mask-rcnn/r50-fpn-2x\""):
            manager.recipe_entry("mask-rcnn/r50-fpn-3x")


def test_a_misspelt_recipe_of_a_known_distribution_that_is_there_gets_the_nearest_names():
    zoo = make_plugin("htc", det_recipes=lambda: [RecipeEntry(name="htc/r50-fpn-1x", make=pytest.fail)])
    with (
        isolated_manager(zoo) as manager,
        pytest.raises(PluginError, match=r"no recipe 'htc/r50-fpn-1y'; did you mean \"htc/r50-fpn-1x\"\? \("),
    ):
        manager.recipe_entry("htc/r50-fpn-1y")


def test_a_recipe_of_a_plugin_that_is_off_or_failed_says_so():
    off = entry_point(GOOD, "ssd", "det-plugin-ssd")
    with (
        isolated_manager(off, choice="") as manager,
        pytest.raises(
            PluginError, match=r"det-plugin-ssd provides the recipes of ssd, but DET_PLUGINS switches it off"
        ),
    ):
        manager.recipe_entry("ssd/vgg16-demo")
    broken = entry_point(ImportError("gone"), "ssd", "det-plugin-ssd")
    with (
        isolated_manager(broken) as manager,
        pytest.raises(PluginError, match=r"should provide the recipes of ssd, but failed: import: ImportError: gone"),
    ):
        manager.recipe_entry("ssd/vgg16-demo")


def test_every_model_of_an_installed_plugin_is_known_by_its_distribution():
    """So that each is named once its plugin is gone; models of several distributions belong to one of them."""
    owners = {model: d.name for d in known.distributions() for model in d.models}
    assert len(owners) == sum(len(d.models) for d in known.distributions())
    adding = {d.name for d in known.distributions() if d.words}
    manager = plugin_manager()
    for name in manager.recipes():
        owner = manager.recipe_owner(name).distribution
        assert owner in adding or owners[name.partition("/")[0]] == owner, name


def test_the_default_and_demo_recipes_of_a_plugin():
    entries = [
        RecipeEntry(name="m/one", make=pytest.fail, default=True),
        RecipeEntry(name="m/demo", make=pytest.fail, demo=True),
    ]
    with isolated_manager(make_plugin("zoo", det_recipes=lambda: entries), GOOD) as manager:
        assert manager.default_recipe("zoo") == "m/one"
        assert manager.default_recipe("zoo", demo=True) == "m/demo"


def test_a_plugin_of_parts_gets_a_recipe_that_uses_them():
    entries = [
        RecipeEntry(name="a/broken", make=lambda: [][0], demo=True),
        RecipeEntry(name="b/other", make=lambda: (), demo=True),
        RecipeEntry(name="c/uses", make=lambda: (GOOD.det_backbones()[0](),), demo=True),
    ]
    with isolated_manager(make_plugin("zoo", det_recipes=lambda: entries), GOOD) as manager:
        assert manager.default_recipe("good", demo=True) == "c/uses"
    others = make_plugin("zoo", det_recipes=lambda: entries[:2])
    refusal = pytest.raises(PluginError, match="plugin 'good' has no demo recipe, .*of this plugin: none")
    with isolated_manager(others, GOOD) as manager, refusal:
        manager.default_recipe("good", demo=True)


def test_run_hooks_get_what_they_ask_for_and_a_failing_one_is_switched_off():
    calls: list[object] = []

    def failing(step):
        calls.append("failing")
        raise RuntimeError("disk full")

    watcher = make_plugin("watcher", det_step_finished=lambda metrics: calls.append(metrics))
    with isolated_manager(make_plugin("failing", det_step_finished=failing), watcher) as manager:
        off: set[int] = set()
        reports: list[str] = []
        for step in (1, 2):
            manager.notify("det_step_finished", off, reports.append, step=step, metrics={"loss": step})
        assert [c for c in calls if c != "failing"] == [{"loss": 1}, {"loss": 2}]
        assert calls.count("failing") == 1
        assert reports == [
            "plugin det-plugin-failing 1.0 failed in det_step_finished and is switched off for this run: "
            "RuntimeError: disk full"
        ]


def source_plugin(name: str, fetch, scheme: str = "store"):
    return make_plugin(name, det_checkpoint_sources=lambda: [CheckpointSource(scheme=scheme, fetch=fetch)])


def test_a_checkpoint_source_fetches_addresses_of_its_scheme():
    with isolated_manager(source_plugin("mine", lambda address: f"/kept/{address}")) as manager:
        assert manager.fetch_checkpoint("store", "store://a/b") == Path("/kept/store://a/b")
        assert manager.fetch_checkpoint("other", "other://a/b") is None
        assert state_of(manager, "mine").provides == {"checkpoint source": ["store://"]}


def test_an_error_of_a_checkpoint_source_is_told_with_its_plugin():
    def fetch(address):
        if address.endswith("own"):
            raise DetError("no such model")
        raise KeyError("etag")

    with isolated_manager(source_plugin("mine", fetch)) as manager:
        with pytest.raises(DetError, match="^no such model$"):
            manager.fetch_checkpoint("store", "store://own")
        with pytest.raises(PluginError, match="^store://a: det-plugin-mine 1.0 failed to fetch it: KeyError: 'etag'$"):
            manager.fetch_checkpoint("store", "store://a")


def test_two_checkpoint_sources_of_one_scheme_are_refused():
    plugins = (source_plugin("one", str), source_plugin("two", str))
    with isolated_manager(*plugins) as manager:
        both = "det-plugin-one 1.0 and det-plugin-two 1.0"
        with pytest.raises(PluginError, match=f"^store://a: store:// is provided by {both}; uninstall one of them"):
            manager.fetch_checkpoint("store", "store://a")
        assert state_of(manager, "one").errors == [
            f"checkpoint source store:// is provided by {both}: none of them is used; uninstall one, or switch one off "
            "with DET_PLUGINS=-one"
        ]


def test_an_address_whose_plugin_is_not_installed_says_what_to_install():
    with isolated_manager() as manager, pytest.raises(PluginError) as caught:
        manager.fetch_checkpoint("hf", "hf://a/b")
    assert str(caught.value) == (
        "hf://a/b: cannot be fetched; det-plugin-hub provides hf://: pip install ./plugins/hub (from a checkout of det)"
    )


@pytest.mark.parametrize(
    ("hook", "item", "error"),
    [
        ("det_checkpoint_sources", "hf", "returned 'hf', which is not a det_core.offers.CheckpointSource"),
        ("det_checkpoint_sources", CheckpointSource(scheme="C", fetch=str), "scheme 'C': expected two or more lower"),
        ("det_commands", "push", "returned 'push', which is not a det_core.offers.CommandEntry"),
        ("det_commands", CommandEntry(name="Push it", help="", load=str), "command 'Push it': expected words of lower"),
    ],
)
def test_a_source_or_command_that_is_none_is_refused(hook, item, error):
    with isolated_manager(make_plugin("bad", **{hook: lambda: [item]})) as manager:
        assert error in state_of(manager, "bad").errors[0]
        assert state_of(manager, "bad").state == "partly"
        assert manager.commands() == {}


def command_plugin(name: str, load, command: str = "greet"):
    return make_plugin(name, det_commands=lambda: [CommandEntry(name=command, help="Say hello.", load=load)])


def test_a_command_is_loaded_when_it_is_asked_for():
    loaded = []
    greet = click.Command("greet")
    plugin = command_plugin("mine", lambda: loaded.append(1) or greet)
    with isolated_manager(plugin) as manager:
        assert [entry.help for entry in manager.commands().values()] == ["Say hello."]
        assert loaded == []
        assert manager.command("greet") is greet


@pytest.mark.parametrize(
    ("load", "error"),
    [
        (lambda: 1 / 0, "'greet' of det-plugin-mine 1.0 cannot be loaded: ZeroDivisionError: division by zero"),
        (lambda: 3, "'greet' of det-plugin-mine 1.0: found 3, expected a click command"),
    ],
)
def test_a_command_that_does_not_load_names_its_plugin(load, error):
    with isolated_manager(command_plugin("mine", load)) as manager, pytest.raises(PluginError, match=error):
        manager.command("greet")


def test_two_commands_of_one_name_are_refused():
    with isolated_manager(command_plugin("one", str), command_plugin("two", str)) as manager:
        both = "det-plugin-one 1.0 and det-plugin-two 1.0"
        assert manager.commands() == {}
        with pytest.raises(PluginError, match=f"^command 'greet' is provided by {both}: none of them is used"):
            manager.command("greet")
        assert "DET_PLUGINS=-two" in state_of(manager, "two").errors[0]


def test_a_plugin_cannot_take_a_command_of_core():
    from det_core import hooks

    core = entry_point(hooks, "core", "det-core")
    with isolated_manager(core, command_plugin("bold", str, "train")) as manager:
        assert state_of(manager, "bold").errors == [
            "det_commands: ValueError: command 'train' is det-core's own; choose another name"
        ]
        assert state_of(manager, "core").errors == []
        assert "train" in manager.commands()


@pytest.mark.parametrize(
    ("hook", "values"),
    [
        ("det_run_started", {"recipe": 1, "work_dir": 2, "step": 0, "say": print}),
        ("det_step_finished", {"step": 1, "metrics": {}}),
        ("det_evaluated", {"step": 1, "metrics": {}}),
        ("det_checkpoint_saved", {"step": 1, "checkpoint": 2}),
        ("det_run_finished", {"step": 1, "reason": "finished", "best": None}),
    ],
)
def test_every_run_hook_can_be_followed(hook, values):
    calls = []
    plugin = make_plugin("watcher", **{hook: lambda: calls.append(hook)})
    with isolated_manager(plugin) as manager:
        manager.notify(hook, set(), pytest.fail, **values)
    assert calls == [hook]


def test_hooks_are_all_accounted_for():
    specs = {name for name in vars(hookspecs) if name.startswith("det_")}
    others = {"det_recipes", "det_weight_maps", "det_checkpoint_sources", "det_commands"}
    assert specs == {*hookspecs.COMPONENT_HOOKS, *hookspecs.RUN_HOOKS, *others}


@pytest.mark.parametrize(
    ("hook", "slots"),
    [
        ("det_backbones", ["backbone"]),
        ("det_necks", ["neck"]),
        ("det_heads", ["dense_head", "roi_head", "box_head", "mask_head", "trunk"]),
        ("det_losses", ["loss"]),
        ("det_layers", ["norm", "conv", "roi_pool"]),
        ("det_targets", ["anchors", "coder", "assigner", "sampler"]),
        ("det_datasets", ["dataset"]),
        ("det_transforms", ["transform"]),
        ("det_evaluators", ["evaluator"]),
    ],
)
def test_every_component_hook_fills_its_slots(hook, slots):
    configs = {slot: stub_config(type("Mine", (SLOTS[slot],), {"type": "mine"})) for slot in slots}
    with isolated_manager(make_plugin("mine", **{hook: lambda: list(configs.values())})) as manager:
        assert state_of(manager, "mine").errors == []
        for slot, config in configs.items():
            assert manager.component(slot, "mine") is config
    assert hookspecs.COMPONENT_HOOKS[hook] == tuple(slots)


def test_every_slot_belongs_to_one_hook():
    slots = [slot for several in hookspecs.COMPONENT_HOOKS.values() for slot in several]
    assert sorted(slots) == sorted(SLOTS)
    for distribution in known.distributions():
        assert set(distribution.types) <= set(SLOTS)


def test_pluggy_and_the_manager_agree_on_the_project():
    with isolated_manager(GOOD) as manager:
        assert isinstance(manager.pluggy, pluggy.PluginManager)
        assert manager.pluggy.project_name == hookspecs.PROJECT == "det_core"
