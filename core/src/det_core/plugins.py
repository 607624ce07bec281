"""The plugin manager: finds plugins by entry point, checks each on its own, and knows who provides what.

pluggy holds the hooks; entry points are loaded and hooks called one plugin at a time here, so that a plugin that
fails costs only itself. Nothing depends on the order of loading.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs
import pluggy

from det_core import hookspecs, known
from det_core.errors import PluginError, nearest
from det_core.settings import Component, fields_of, is_config
from det_core.slots import SLOTS

if TYPE_CHECKING:
    from det_core.offers import RecipeEntry, WeightMap

EntryPoint = tuple[str, str, str, Callable[[], object]]  # name, distribution, version, load


@attrs.define
class PluginState:
    """What is known of one plugin: shown by `det-core plugins`."""

    name: str
    distribution: str
    version: str
    provides: dict[str, list[str]] = attrs.field(factory=dict)
    errors: list[str] = attrs.field(factory=list)
    state: str = "ok"  # ok | partly (a hook failed) | failed (nothing usable) | off (DET_PLUGINS)
    trace: str = ""

    def fail(self, what: str, error: BaseException, *, whole: bool) -> None:
        """Record a failure: of the whole plugin, or of one hook."""
        self.errors.append(f"{what}: {type(error).__name__}: {error}")
        self.trace += "".join(traceback.format_exception(error))
        self.state = "failed" if whole else "partly"

    @property
    def label(self) -> str:
        return f"{self.distribution} {self.version}" if self.distribution else self.name


@attrs.frozen
class Provided:
    """A component class and the plugin that brought it."""

    config: type[Component]
    plugin: PluginState


def parts_of(config: Any) -> Iterator[type[Component]]:
    """The classes of all components in a configuration, at any depth."""
    if isinstance(config, tuple):
        for item in config:
            yield from parts_of(item)
    elif attrs.has(type(config)):
        if isinstance(config, Component):
            yield type(config)
        for attribute in attrs.fields(type(config)):
            yield from parts_of(getattr(config, attribute.name))


def _selected(name: str, choice: str | None) -> bool:
    """Whether DET_PLUGINS lets this plugin load: unset = all, `a,b` = only these, `-a` = all but a, empty = none."""
    if choice is None or name == "core":
        return True
    words = [w.strip() for w in choice.split(",") if w.strip()]
    without = {w[1:] for w in words if w.startswith("-")}
    only = [w for w in words if not w.startswith("-")]
    return name not in without and (name in only or (not only and bool(without)))


class PluginManager:
    """All plugins of this process, with what each one provides.

    entry_points: (name, distribution, version, load) for each; by default those installed.
    """

    def __init__(
        self,
        entry_points: Sequence[EntryPoint] | None = None,
        choice: str | None = None,
    ) -> None:
        self.pluggy = pluggy.PluginManager(hookspecs.PROJECT)
        self.pluggy.add_hookspecs(hookspecs)
        self.plugins: list[PluginState] = []
        self._states: dict[int, PluginState] = {}
        self._components: dict[tuple[str, str], list[Provided]] = {}
        self._recipes: dict[str, list[tuple[RecipeEntry, PluginState]]] = {}
        self._maps: dict[tuple[str, type[Component]], list[tuple[WeightMap, PluginState]]] = {}
        self.choice = choice
        found = installed_plugins() if entry_points is None else entry_points
        for name, distribution, version, load in sorted(found, key=lambda e: (e[0] != "core", e[0], e[1])):
            state = PluginState(name, distribution, version)
            self.plugins.append(state)
            if _selected(name, choice):
                self._load(state, load)
            else:
                state.state = "off"
        self._collect()

    def _load(self, state: PluginState, load: Callable[[], object]) -> None:
        try:
            plugin = load()
        except (Exception, SystemExit) as error:  # whatever a plugin raises is its own problem, shown and survived
            state.fail("import", error, whole=True)
            return
        if id(plugin) in self._states:
            other = self._states[id(plugin)]
            state.fail("registration", ValueError(f"{other.label} has registered the same module"), whole=True)
            return
        try:
            self.pluggy.register(plugin, name=f"{state.name} ({state.distribution})")
            self.pluggy.check_pending()  # a misspelled hook would otherwise be ignored without a word
        except Exception as error:
            if self.pluggy.is_registered(plugin):
                self.pluggy.unregister(plugin)
            state.fail("registration", error, whole=True)
            if isinstance(error, pluggy.PluginValidationError) and "unknown hook" in str(error):
                wrong = re.findall(r"unknown hook '(\w+)'", str(error))
                specs = [name for name in vars(hookspecs) if name.startswith("det_")]
                state.errors[-1] += "".join(nearest(w, specs) for w in wrong)
            return
        self._states[id(plugin)] = state

    def _collect(self) -> None:
        for hook in hookspecs.COMPONENT_HOOKS:
            self._collect_each(hook, partial(self._add_component, hook))
        self._collect_each("det_recipes", self._add_recipe)
        self._collect_each("det_weight_maps", self._add_weight_map)
        for (slot, name), provided in self._components.items():
            self._refuse_several(f"{slot} type {name!r}", [p.plugin for p in provided])
        for name, entries in self._recipes.items():
            self._refuse_several(f"recipe {name!r}", [state for _, state in entries])
        for (source, component), maps in self._maps.items():
            self._refuse_several(f"the {source} weight map of {component.__name__}", [state for _, state in maps])

    def _collect_each(self, hook: str, add: Callable[[Any, PluginState], None]) -> None:
        """Add all that every plugin returns from a hook without arguments; failures cost what failed, no more."""
        for impl in getattr(self.pluggy.hook, hook).get_hookimpls():
            state = self._states[id(impl.plugin)]
            try:
                if impl.wrapper or impl.hookwrapper:
                    raise TypeError("hook wrappers are not supported; return the plugin's own parts")
                found = list(impl.function())
            except Exception as error:
                state.fail(hook, error, whole=False)
                continue
            for item in found:
                try:
                    add(item, state)
                except Exception as error:
                    state.fail(hook, error, whole=False)

    def _refuse_several(self, what: str, states: list[PluginState]) -> None:
        """Record, on all of them, that several plugins provide one name."""
        if len(states) < 2:
            return
        for state in {id(s): s for s in states}.values():
            state.state = "partly"
            state.errors.append(
                f"{what} is provided by {_and(states)}: none of them is used; uninstall one, or switch one off with "
                f"DET_PLUGINS=-{state.name}"
            )

    def _add_recipe(self, entry: RecipeEntry, state: PluginState) -> None:
        if not (isinstance(getattr(entry, "name", None), str) and callable(getattr(entry, "make", None))):
            raise TypeError(f"returned {entry!r}, which is not a det_core.offers.RecipeEntry")
        self._recipes.setdefault(entry.name, []).append((entry, state))
        state.provides.setdefault("recipe", []).append(entry.name)

    def _add_weight_map(self, weight_map: WeightMap, state: PluginState) -> None:
        component, source = getattr(weight_map, "component", None), getattr(weight_map, "source", None)
        if not (isinstance(component, type) and issubclass(component, Component) and isinstance(source, str)):
            raise TypeError(f"returned {weight_map!r}, which is not a det_core.offers.WeightMap")
        self._maps.setdefault((source, component), []).append((weight_map, state))
        state.provides.setdefault("weight map", []).append(f"{source}:{component.type}")

    def _add_component(self, hook: str, config: type[Component], state: PluginState) -> None:
        if not (isinstance(config, type) and issubclass(config, Component)):
            raise TypeError(f"returned {config!r}, which is not a configuration class")
        if config.slot not in SLOTS or not issubclass(config, SLOTS[config.slot]):
            raise TypeError(f"{config.__name__}.slot is {config.slot!r}; allowed: {', '.join(SLOTS)}")
        if config.slot not in hookspecs.COMPONENT_HOOKS[hook]:
            right = next(h for h, slots in hookspecs.COMPONENT_HOOKS.items() if config.slot in slots)
            raise TypeError(f"returned {config.__name__} of slot {config.slot!r}, which belongs in {right}")
        if not config.type:
            raise TypeError(f"{config.__name__} has no `type` name")
        if "type" not in vars(config):
            raise TypeError(f"{config.__name__} inherits its `type` {config.type!r}; give it one of its own")
        if not is_config(config):
            raise TypeError(f"{config.__name__} is not decorated with det_core.settings.configclass")
        if missing := ", ".join(f"{name}()" for name in sorted(config.__abstractmethods__)):
            raise TypeError(f"{config.__name__} does not define {missing}, as {SLOTS[config.slot].__name__} requires")
        fields_of(config)
        self._components.setdefault((config.slot, config.type), []).append(Provided(config, state))
        state.provides.setdefault(config.slot, []).append(config.type)

    def component(self, slot: str, name: str) -> type[Component]:
        """The configuration class with this type in this slot; PluginError that says why there is none."""
        several = self._components.get((slot, name), [])
        if len(several) == 1:
            return several[0].config
        if several:
            who = _and([p.plugin for p in several])
            raise PluginError(
                f"type {name!r} is provided twice in slot {slot}, by {who}; uninstall one of them, or switch one off "
                f"with DET_PLUGINS=-{several[0].plugin.name}"
            )
        raise PluginError(f"unknown type {name!r} for {slot}{self._why_missing(slot, name)}")

    def _why_missing(self, slot: str, name: str) -> str:
        known_of = known.provider(slot, name)
        if known_of:
            return self._why_absent(known_of)
        types = self.types(slot)
        hint = nearest(name, types)
        failed = [f"{p.label} ({p.errors[0]})" for p in self.plugins if p.errors]
        broken = f"; plugins that failed and might provide it: {', '.join(failed)}" if failed else ""
        installed = f"; installed: {', '.join(types) or 'none'}"
        return f"{hint or installed}{broken}"

    def _why_absent(self, distribution: str, what: str = "it") -> str:
        """Why something that a known distribution provides is not there."""
        for plugin in self.plugins:
            if plugin.distribution == distribution and plugin.state == "off":
                return f"; {distribution} provides {what}, but DET_PLUGINS switches it off"
            if plugin.distribution == distribution and plugin.errors:
                return f"; {distribution} should provide {what}, but failed: {plugin.errors[0]}"
        return f"; {distribution} provides {what}: {known.install_hint(distribution)}"

    def component_elsewhere(self, slot: str, name: str) -> type[Component] | None:
        """A component of that type in another slot, where nobody is known to have one in this."""
        if known.provider(slot, name):
            return None
        found = (several[0].config for (_, type_), several in self._components.items() if type_ == name)
        return next(found, None)

    def types(self, slot: str) -> list[str]:
        """The usable type names of a slot."""
        return sorted(name for (s, name), several in self._components.items() if s == slot and len(several) == 1)

    def provider(self, config: type[Component]) -> PluginState | None:
        """The plugin a component class came from."""
        for provided in self._components.get((config.slot, config.type), []):
            if provided.config is config:
                return provided.plugin
        return None

    def recipes(self) -> dict[str, RecipeEntry]:
        """All zoo entries by name, those whose requirements are missing included, names given twice left out."""
        return {name: several[0][0] for name, several in sorted(self._recipes.items()) if len(several) == 1}

    def recipe_entry(self, name: str) -> RecipeEntry:
        """The zoo entry of that name; PluginError with the nearest names, what installs it, or its two providers."""
        several = self._recipes.get(name, [])
        if len(several) > 1:
            who = _and([state for _, state in several])
            raise PluginError(f"recipe {name!r} is provided by {who}; uninstall one of them")
        if not several:
            raise PluginError(f"no recipe {name!r}{self._why_no_recipe(name)} (`det-core recipes` lists them)")
        return several[0][0]

    def _why_no_recipe(self, name: str) -> str:
        model = name.partition("/")[0]
        there = [
            state for known, several in self._recipes.items() if known.startswith(f"{model}/") for _, state in several
        ]
        for distribution, what in known.recipes_like(name):
            if all(state.distribution != distribution for state in there):
                return self._why_absent(distribution, what)
        failed = [f"{p.label} ({p.errors[0]})" for p in self.plugins if p.errors]
        broken = f"; plugins that failed: {', '.join(failed)}" if failed else ""
        return f"{nearest(name, self._recipes)}{broken}"

    def recipe_owner(self, name: str) -> PluginState:
        """The plugin that provides a recipe; PluginError as `recipe_entry`."""
        self.recipe_entry(name)
        return self._recipes[name][0][1]

    def weight_map(self, source: str, component: type[Component]) -> WeightMap | None:
        """How checkpoints of `source` map onto this component, if somebody said; PluginError if two did."""
        several = self._maps.get((source, component), [])
        if len(several) > 1:
            who = _and([state for _, state in several])
            raise PluginError(f"the {source} weight map of {component.__name__} is provided by {who}; uninstall one")
        return several[0][0] if several else None

    def plugin(self, name: str) -> PluginState:
        """A plugin by its entry-point or distribution name; PluginError with the nearest names, or what installs it."""
        for state in self.plugins:
            if name in (state.name, state.distribution):
                if state.state in ("failed", "off"):
                    reason = state.errors[0] if state.errors else "DET_PLUGINS switches it off"
                    raise PluginError(f"plugin {name!r} cannot be used: {reason}")
                return state
        hint = known.install_hint_of_plugin(name)
        why = f"; get it by {hint}" if hint else nearest(name, [p.name for p in self.plugins])
        raise PluginError(f"no plugin {name!r} is installed{why} (`det-core plugins` lists them)")

    def default_recipe(self, name: str, *, demo: bool = False) -> str:
        """The recipe that `--plugin name` stands for: the plugin's default, or its `demo` on the bundled sample.

        A plugin that only brings parts (a backbone, a neck) has none of its own: the first of another plugin's that
        uses one of them stands in.
        """
        state = self.plugin(name)
        marked = [
            (entry, owner)
            for _, entries in sorted(self._recipes.items())
            for entry, owner in entries
            if (entry.demo if demo else entry.default)
        ]
        for entry, owner in marked:
            if owner is state:
                return entry.name
        for entry, _ in marked:
            if not entry.missing() and self._uses(entry, state):
                return entry.name
        kind = "demo" if demo else "default"
        raise PluginError(
            f"plugin {name!r} names no {kind} recipe, and no other's uses its parts; choose one with --recipe: "
            f"{', '.join(state.provides.get('recipe', [])) or 'it has none'}"
        )

    def _uses(self, entry: RecipeEntry, state: PluginState) -> bool:
        """Whether a recipe has a part of this plugin; one that cannot be made has none."""
        try:
            recipe = entry.make()
        except Exception:  # its own plugin's trouble, told when that recipe is asked for
            return False
        return any(self.provider(part) is state for part in parts_of(recipe))

    def notify(self, hook: str, switched_off: set[int], report: Callable[[str], None], **values: object) -> None:
        """Call a run hook on every plugin; one that raises is reported and joins `switched_off` for the run."""
        for impl in getattr(self.pluggy.hook, hook).get_hookimpls():
            if id(impl.plugin) in switched_off:
                continue
            try:
                impl.function(*(values[name] for name in impl.argnames))
            except Exception as error:
                switched_off.add(id(impl.plugin))
                state = self._states[id(impl.plugin)]
                report(
                    f"plugin {state.label} failed in {hook} and is switched off for this run: "
                    f"{type(error).__name__}: {error}"
                )

    def versions(self) -> dict[str, str]:
        """Version by distribution of the plugins in use, recorded with every run and checkpoint."""
        return {p.distribution: p.version for p in self.plugins if p.state in ("ok", "partly")}

    def warnings(self) -> list[str]:
        """What is odd about the choice of plugins itself: names in DET_PLUGINS that nothing installed bears."""
        names = [p.name for p in self.plugins]
        words = [w.strip().removeprefix("-") for w in (self.choice or "").split(",") if w.strip()]
        return [f"DET_PLUGINS names {w!r}, which is not installed{nearest(w, names)}" for w in words if w not in names]

    def require_all(self) -> None:
        """PluginError if any plugin failed, wholly or in part (`--strict-plugins`)."""
        failed = [f"{p.label}: {error}" for p in self.plugins for error in p.errors]
        failed += self.warnings()
        if failed:
            raise PluginError("plugins failed, and --strict-plugins allows none to:\n  " + "\n  ".join(failed))


def _and(states: Iterable[PluginState]) -> str:
    return " and ".join(sorted(state.label for state in states))


def installed_plugins() -> list[EntryPoint]:
    """(name, distribution, version, load) of every installed entry point of the group."""
    found = []
    for point in importlib.metadata.entry_points(group=hookspecs.ENTRY_POINT_GROUP):
        dist = point.dist
        found.append((point.name, dist.name if dist else "", dist.version if dist else "", point.load))
    return found


_manager: PluginManager | None = None


def plugin_manager() -> PluginManager:
    """The manager of what is installed, made once per process; the environment variable DET_PLUGINS limits it."""
    global _manager
    if _manager is None:
        _manager = PluginManager(choice=os.environ.get("DET_PLUGINS"))
    return _manager


def use_manager(manager: PluginManager | None) -> PluginManager | None:
    """Let `plugin_manager()` return this one (None: what is installed); for tests. Returns the one before."""
    global _manager
    before, _manager = _manager, manager
    return before
