"""The plugin manager: finds plugins by entry point, checks each one, and records what it provides.

pluggy holds the hooks. Entry points are loaded and hooks are called one plugin at a time, so that a failing plugin does
not affect others. The order of loading does not matter.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
import click
import pluggy

from det_core import hookspecs, known
from det_core.errors import DetError, PluginError, nearest
from det_core.settings import Component, fields_of, is_config
from det_core.slots import SLOTS

if TYPE_CHECKING:
    from det_core.offers import CheckpointSource, CommandEntry, RecipeEntry, WeightMap

EntryPoint = tuple[str, str, str, Callable[[], object]]  # name, distribution, version, load


@attrs.define
class PluginState:
    """The state of one plugin, as `det-core plugins` shows it."""

    name: str
    distribution: str
    version: str
    state: str = "ok"  # ok | partly (a hook failed) | failed (nothing usable) | off (DET_PLUGINS)
    provides: dict[str, list[str]] = attrs.field(factory=dict)
    errors: list[str] = attrs.field(factory=list)
    trace: str = ""

    def fail(self, what: str, error: BaseException, *, whole: bool) -> None:
        """Record a failure of the whole plugin, or of one hook."""
        self.errors.append(f"{what}: {type(error).__name__}: {error}")
        self.trace += "".join(traceback.format_exception(error))
        self.state = "failed" if whole else "partly"

    @property
    def label(self) -> str:
        return f"{self.distribution} {self.version}" if self.distribution else self.name


@attrs.frozen
class Provided:
    """A component class and the plugin that provides it."""

    config: type[Component]
    plugin: PluginState


def component_classes(config: Any) -> Iterator[type[Component]]:
    """The classes of all components in a configuration, at any depth."""
    if isinstance(config, tuple):
        for item in config:
            yield from component_classes(item)
    elif attrs.has(type(config)):
        if isinstance(config, Component):
            yield type(config)
        for attribute in attrs.fields(type(config)):
            yield from component_classes(getattr(config, attribute.name))


def _selected(name: str, choice: str | None) -> bool:
    """Whether DET_PLUGINS allows this plugin: unset: all, `a,b`: only these, `-a`: all except a, empty: none."""
    if choice is None or name == "core":
        return True
    words = [w.strip() for w in choice.split(",") if w.strip()]
    excluded = {w[1:] for w in words if w.startswith("-")}
    only = [w for w in words if not w.startswith("-")]
    return name not in excluded and (name in only or (not only and bool(excluded)))


class PluginManager:
    """All plugins of this process, and what each one provides.

    entry_points: (name, distribution, version, load) of each plugin; by default the installed ones. choice: the value
    of DET_PLUGINS.
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
        self._sources: dict[str, list[tuple[CheckpointSource, PluginState]]] = {}
        self._commands: dict[str, list[tuple[CommandEntry, PluginState]]] = {}
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
        except (Exception, SystemExit) as error:
            state.fail("import", error, whole=True)
            return
        if id(plugin) in self._states:
            other = self._states[id(plugin)]
            state.fail("registration", ValueError(f"{other.label} has registered the same module"), whole=True)
            return
        try:
            self.pluggy.register(plugin, name=f"{state.name} ({state.distribution})")
            self.pluggy.check_pending()  # pluggy ignores a misspelled hook otherwise
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

    def _collect(self, only: PluginState | None = None) -> None:
        """Call the hooks of all plugins, or of one that is added later."""
        for hook in hookspecs.COMPONENT_HOOKS:
            self._collect_each(hook, partial(self._add_component, hook), only)
        self._collect_each("det_recipes", self._add_recipe, only)
        self._collect_each("det_weight_maps", self._add_weight_map, only)
        self._collect_each("det_checkpoint_sources", self._add_source, only)
        self._collect_each("det_commands", self._add_command, only)
        for hook in hookspecs.RUN_HOOKS:
            for impl in getattr(self.pluggy.hook, hook).get_hookimpls():
                if only in (None, state := self._states[id(impl.plugin)]):
                    state.provides.setdefault("run hook", []).append(hook)
        for (slot, name), provided in self._components.items():
            self._record_conflict(f"{slot} type {name!r}", [p.plugin for p in provided])
        for name, entries in self._recipes.items():
            self._record_conflict(f"recipe {name!r}", [state for _, state in entries])
        for (source, component), maps in self._maps.items():
            self._record_conflict(f"the {source} weight map of {component.__name__}", [state for _, state in maps])
        for scheme, sources in self._sources.items():
            self._record_conflict(f"checkpoint source {scheme}://", [state for _, state in sources])
        for name, commands in self._commands.items():
            self._record_conflict(f"command {name!r}", [state for _, state in commands])

    def add_plugin(self, plugin: object, name: str) -> PluginState:
        """Add a plugin without a distribution, such as a file; PluginError with everything that is wrong with it."""
        state = PluginState(name, "", "")
        self.plugins.append(state)
        self._load(state, lambda: plugin)
        if not state.errors:
            self._collect(state)
        if state.errors:
            raise PluginError(f"{name}: " + "\n  ".join(state.errors))
        return state

    def register(self, config: type[Component], origin: str) -> None:
        """Add a part without a plugin; see `register`. origin: the file or module that it is registered in."""
        state = next((p for p in self.plugins if p.name == origin and not p.distribution), None)
        if state is None:
            state = PluginState(origin, "", "")
            self.plugins.append(state)
        try:
            _check_component(config)
        except (TypeError, DetError) as error:
            raise PluginError(f"register: {error}") from None
        before = self._components.get((config.slot, config.type), [])
        own = [p for p in before if p.plugin is state]
        if len(own) < len(before):
            others = _labels([p.plugin for p in before if p.plugin is not state])
            raise PluginError(f"register: {config.slot} type {config.type!r} is provided by {others}; choose another")
        # A cell of a notebook that runs again defines its class again.
        self._components[config.slot, config.type] = [Provided(config, state)]
        if not own:
            state.provides.setdefault(config.slot, []).append(config.type)

    def _collect_each(
        self, hook: str, add: Callable[[Any, PluginState], None], only: PluginState | None = None
    ) -> None:
        """Call a hook of every plugin and add each item that it returns; a failing hook or item is recorded."""
        for impl in getattr(self.pluggy.hook, hook).get_hookimpls():
            state = self._states[id(impl.plugin)]
            if only not in (None, state):
                continue
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

    def _record_conflict(self, what: str, states: list[PluginState]) -> None:
        """If several plugins provide one name, record an error on each."""
        if len(states) < 2:
            return
        for state in {id(s): s for s in states}.values():
            state.state = "partly"
            state.errors.append(
                f"{what} is provided by {_labels(states)}: none of them is used; uninstall one, or switch one off with "
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

    def _add_source(self, source: CheckpointSource, state: PluginState) -> None:
        scheme = getattr(source, "scheme", None)
        if not (isinstance(scheme, str) and callable(getattr(source, "fetch", None))):
            raise TypeError(f"returned {source!r}, which is not a det_core.offers.CheckpointSource")
        if not re.fullmatch("[a-z][a-z0-9]+", scheme):  # one letter is a drive
            raise ValueError(f"scheme {scheme!r}: expected two or more lower-case letters and digits, such as 'hf'")
        self._sources.setdefault(scheme, []).append((source, state))
        state.provides.setdefault("checkpoint source", []).append(f"{scheme}://")

    def _add_command(self, entry: CommandEntry, state: PluginState) -> None:
        name = getattr(entry, "name", None)
        if not (isinstance(name, str) and isinstance(getattr(entry, "help", None), str)) or not callable(
            getattr(entry, "load", None)
        ):
            raise TypeError(f"returned {entry!r}, which is not a det_core.offers.CommandEntry")
        if not re.fullmatch("[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
            raise ValueError(f"command {name!r}: expected words of lower-case letters and digits, such as 'push-all'")
        if any(other.name == "core" and other is not state for _, other in self._commands.get(name, ())):
            raise ValueError(f"command {name!r} is det-core's own; choose another name")
        self._commands.setdefault(name, []).append((entry, state))
        state.provides.setdefault("command", []).append(name)

    def _add_component(self, hook: str, config: type[Component], state: PluginState) -> None:
        if not (isinstance(config, type) and issubclass(config, Component)):
            raise TypeError(f"returned {config!r}, which is not a configuration class")
        _check_slot(config)
        if config.slot not in hookspecs.COMPONENT_HOOKS[hook]:
            right = next(h for h, slots in hookspecs.COMPONENT_HOOKS.items() if config.slot in slots)
            raise TypeError(f"returned {config.__name__} of slot {config.slot!r}; return it from {right}")
        _check_component(config)
        self._components.setdefault((config.slot, config.type), []).append(Provided(config, state))
        state.provides.setdefault(config.slot, []).append(config.type)

    def component(self, slot: str, name: str) -> type[Component]:
        """The configuration class with this type in this slot; PluginError with the reason if there is none."""
        several = self._components.get((slot, name), [])
        if len(several) == 1:
            return several[0].config
        if several:
            who = _labels([p.plugin for p in several])
            raise PluginError(
                f"type {name!r} is provided twice in slot {slot}, by {who}; uninstall one of them, or switch one off "
                f"with DET_PLUGINS=-{several[0].plugin.name}"
            )
        raise PluginError(f"unknown type {name!r} for {slot}{self._type_hint(slot, name)}")

    def _type_hint(self, slot: str, name: str) -> str:
        """Why a type is unknown, or the nearest names."""
        distribution = known.provider(slot, name)
        if distribution:
            return self._distribution_hint(distribution)
        types = self.types(slot)
        hint = nearest(name, types) or f"; installed: {', '.join(types) or 'none'}"
        return hint + self._failed_plugins("plugins that failed and might provide it")

    def _failed_plugins(self, title: str) -> str:
        failed = [f"{p.label} ({p.errors[0]})" for p in self.plugins if p.errors]
        return f"; {title}: {', '.join(failed)}" if failed else ""

    def _distribution_hint(self, distribution: str, what: str = "it") -> str:
        """Why what a distribution of this project provides is not available."""
        for plugin in self.plugins:
            if plugin.distribution == distribution and plugin.state == "off":
                return f"; {distribution} provides {what}, but DET_PLUGINS switches it off"
            if plugin.distribution == distribution and plugin.errors:
                return f"; {distribution} should provide {what}, but failed: {plugin.errors[0]}"
        return f"; {distribution} provides {what}: {known.install_hint(distribution)}"

    def component_in_other_slot(self, slot: str, name: str) -> type[Component] | None:
        """A component with this type in another slot; None if a plugin of this project has the type in this slot."""
        if known.provider(slot, name):
            return None
        others = (p[0].config for (s, type_), p in self._components.items() if type_ == name and s != slot)
        return next(others, None)

    def types(self, slot: str) -> list[str]:
        """The usable type names of a slot."""
        return sorted(name for (s, name), several in self._components.items() if s == slot and len(several) == 1)

    def provider(self, config: type[Component]) -> PluginState | None:
        """The plugin that provides a component class."""
        for provided in self._components.get((config.slot, config.type), []):
            if provided.config is config:
                return provided.plugin
        return None

    def recipes(self) -> dict[str, RecipeEntry]:
        """All zoo entries by name, also those with missing requirements; without names that two plugins provide."""
        return {name: several[0][0] for name, several in sorted(self._recipes.items()) if len(several) == 1}

    def recipe_entry(self, name: str) -> RecipeEntry:
        """The zoo entry with this name; PluginError with the nearest names, what to install, or its two providers."""
        several = self._recipes.get(name, [])
        if len(several) > 1:
            who = _labels([state for _, state in several])
            raise PluginError(f"recipe {name!r} is provided by {who}; uninstall one of them")
        if not several:
            raise PluginError(f"no recipe {name!r}{self._recipe_hint(name)} (`det-core recipes` lists them)")
        return several[0][0]

    def _recipe_hint(self, name: str) -> str:
        """Why a recipe is unknown, or the nearest names."""
        model = name.partition("/")[0]
        providers = [
            state for known, several in self._recipes.items() if known.startswith(f"{model}/") for _, state in several
        ]
        for distribution, what in known.recipes_like(name):
            if all(state.distribution != distribution for state in providers):
                return self._distribution_hint(distribution, what)
        return nearest(name, self._recipes) + self._failed_plugins("plugins that failed")

    def recipe_owner(self, name: str) -> PluginState:
        """The plugin that provides a recipe; PluginError as `recipe_entry`."""
        self.recipe_entry(name)
        return self._recipes[name][0][1]

    def weight_map(self, source: str, component: type[Component]) -> WeightMap | None:
        """The weight map of this component for checkpoints of `source`, or None; PluginError if there are two."""
        several = self._maps.get((source, component), [])
        if len(several) > 1:
            who = _labels([state for _, state in several])
            raise PluginError(f"the {source} weight map of {component.__name__} is provided by {who}; uninstall one")
        return several[0][0] if several else None

    def fetch_checkpoint(self, scheme: str, address: str) -> Path | None:
        """The local copy of the checkpoint at `SCHEME://...`; None if no plugin is known that fetches from there.

        Raises:
            PluginError: if two plugins provide the scheme, the plugin that does is not available, or it fails.
            DetError: whatever the plugin raises.
        """
        several = self._sources.get(scheme, [])
        if len(several) > 1:
            who = _labels([state for _, state in several])
            raise PluginError(f"{address}: {scheme}:// is provided by {who}; uninstall one of them")
        if not several:
            distribution = known.scheme_provider(scheme)
            if not distribution:
                return None
            raise PluginError(f"{address}: cannot be fetched{self._distribution_hint(distribution, f'{scheme}://')}")
        source, state = several[0]
        try:
            return Path(source.fetch(address))
        except DetError:
            raise
        except Exception as error:
            raise PluginError(
                f"{address}: {state.label} failed to fetch it: {type(error).__name__}: {error}"
            ) from error

    def commands(self) -> dict[str, CommandEntry]:
        """The commands of `det-core` by name, core's own first; without names that two plugins provide."""
        return {name: several[0][0] for name, several in self._commands.items() if len(several) == 1}

    def command(self, name: str) -> click.Command:
        """The click command with this name; PluginError with the reason if there is none, or it cannot be loaded."""
        several = self._commands.get(name, [])
        if len(several) > 1:
            who = _labels([state for _, state in several])
            raise PluginError(f"command {name!r} is provided by {who}: none of them is used; uninstall one of them")
        if not several:
            raise PluginError(f"no command {name!r}{self._command_hint(name)}")
        entry, state = several[0]
        try:
            command = entry.load()
        except DetError:
            raise
        except Exception as error:
            raise PluginError(
                f"command {name!r} of {state.label} cannot be loaded: {type(error).__name__}: {error}"
            ) from error
        if not isinstance(command, click.Command):
            raise PluginError(f"command {name!r} of {state.label}: found {command!r}, expected a click command")
        return command

    def _command_hint(self, name: str) -> str:
        """Why a command is unknown, or the nearest names."""
        distribution = known.command_provider(name)
        if distribution:
            return self._distribution_hint(distribution)
        names = self.commands()
        return nearest(name, names) or f"; available: {', '.join(names)}"

    def plugin(self, name: str) -> PluginState:
        """A plugin by its entry-point or distribution name; PluginError with the nearest names, or what to install."""
        for state in self.plugins:
            if name in (state.name, state.distribution):
                if state.state in ("failed", "off"):
                    reason = state.errors[0] if state.errors else "DET_PLUGINS switches it off"
                    raise PluginError(f"plugin {name!r} cannot be used: {reason}")
                return state
        hint = known.install_hint_of_plugin(name)
        why = f"; install it with {hint}" if hint else nearest(name, [p.name for p in self.plugins])
        raise PluginError(f"no plugin {name!r} is installed{why} (`det-core plugins` lists them)")

    def default_recipe(self, name: str, *, demo: bool = False) -> str:
        """The recipe that `--plugin name` selects: the plugin's default, or its demo on the bundled sample.

        For a plugin without one, it is the first default (or demo) recipe that uses a component of the plugin.
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
            f"plugin {name!r} has no {kind} recipe, and no {kind} recipe of another plugin uses its components; choose "
            f"a recipe with --recipe; those of this plugin: {', '.join(state.provides.get('recipe', [])) or 'none'}"
        )

    def _uses(self, entry: RecipeEntry, state: PluginState) -> bool:
        """Whether a recipe uses a component of this plugin; False if the recipe cannot be made."""
        try:
            recipe = entry.make()
        except Exception:  # reported when that recipe is used
            return False
        return any(self.provider(component) is state for component in component_classes(recipe))

    def notify(self, hook: str, switched_off: set[int], report: Callable[[str], None], **values: object) -> None:
        """Call a run hook of every plugin. A plugin that raises is reported and added to `switched_off`."""
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
        """The versions of the plugins in use, by distribution; recorded with every run and checkpoint."""
        return {p.distribution: p.version for p in self.plugins if p.distribution and p.state in ("ok", "partly")}

    def unpackaged(self, config: Any) -> dict[str, str]:
        """The components in a configuration that no distribution provides: their origins by `slot type`."""
        found = {}
        for cls in component_classes(config):
            state = self.provider(cls)
            if state is not None and not state.distribution:
                found[f"{cls.slot} {cls.type}"] = state.name
        return found

    def check_registered(self, config: Any) -> None:
        """Raise PluginError if a component in a configuration cannot be found by its `type`."""
        unknown = {cls for cls in component_classes(config) if self.provider(cls) is None}
        if unknown:
            names = ", ".join(f"{cls.__name__} ({cls.slot} type {cls.type!r})" for cls in sorted(unknown, key=repr))
            first = min(unknown, key=repr).__name__
            raise PluginError(
                f"not registered: {names}; a checkpoint of them could not be opened; call det_core.register({first}) "
                "after the class is defined, or provide it by a plugin"
            )

    def warnings(self) -> list[str]:
        """Warnings for names in DET_PLUGINS that are not installed."""
        names = [p.name for p in self.plugins]
        words = [w.strip().removeprefix("-") for w in (self.choice or "").split(",") if w.strip()]
        return [f"DET_PLUGINS names {w!r}, which is not installed{nearest(w, names)}" for w in words if w not in names]

    def require_all(self) -> None:
        """Raise PluginError if any plugin or hook failed (`--strict-plugins`)."""
        failed = [f"{p.label}: {error}" for p in self.plugins for error in p.errors]
        failed += self.warnings()
        if failed:
            raise PluginError("these plugins failed to load (--strict-plugins is set):\n  " + "\n  ".join(failed))


def _check_slot(config: type[Component]) -> None:
    """Raise TypeError if a configuration class is of no slot."""
    if config.slot not in SLOTS or not issubclass(config, SLOTS[config.slot]):
        raise TypeError(f"{config.__name__}.slot is {config.slot!r}; allowed: {', '.join(SLOTS)}")


def _check_component(config: type[Component]) -> None:
    """Raise TypeError if a class cannot be the configuration of a part, DetError for a field that is not supported."""
    if not (isinstance(config, type) and issubclass(config, Component)):
        raise TypeError(f"{config!r} is not a configuration class")
    _check_slot(config)
    if not config.type:
        raise TypeError(f"{config.__name__} has no `type` name")
    if "type" not in vars(config):
        raise TypeError(f"{config.__name__} inherits its `type` {config.type!r}; set a `type` in the class itself")
    if not is_config(config):
        raise TypeError(f"{config.__name__} is not decorated with det_core.settings.configclass")
    if missing := ", ".join(f"{name}()" for name in sorted(config.__abstractmethods__)):
        raise TypeError(f"{config.__name__} does not define {missing}, as {SLOTS[config.slot].__name__} requires")
    fields_of(config)


def _labels(states: Iterable[PluginState]) -> str:
    return " and ".join(sorted(state.label for state in states))


def installed_plugins() -> list[EntryPoint]:
    """(name, distribution, version, load) of every installed plugin."""
    found = []
    for point in importlib.metadata.entry_points(group=hookspecs.ENTRY_POINT_GROUP):
        dist = point.dist
        found.append((point.name, dist.name if dist else "", dist.version if dist else "", point.load))
    return found


C = TypeVar("C", bound=type[Component])


def register(config: C) -> C:
    """Make a part available by its `type` without a package; usable as a decorator of a configuration class.

        @register
        @configclass
        class MyLossConfig(LossConfig): ...

    It lasts for this process. To open its checkpoints elsewhere, register it there first, or keep it in a file for
    `det-core --plugin-file`. Returns the class.

    Raises:
        PluginError: for a class that is no configuration of a part, or a `type` that a plugin provides.
    """
    plugin_manager().register(config, origin_of(config))
    return config


def origin_of(config: type) -> str:
    """The name of the file, or else of the module, in which a class is defined."""
    module = sys.modules.get(getattr(config, "__module__", ""), None)
    file = getattr(module, "__file__", None)
    return os.path.basename(file) if file else getattr(config, "__module__", "?")


_manager: PluginManager | None = None


def plugin_manager() -> PluginManager:
    """The manager of the installed plugins, made once per process. The environment variable DET_PLUGINS limits it."""
    global _manager
    if _manager is None:
        _manager = PluginManager(choice=os.environ.get("DET_PLUGINS"))
    return _manager


def use_manager(manager: PluginManager | None) -> PluginManager | None:
    """Make `plugin_manager()` return this manager (None: of the installed plugins), for tests. Returns the old one."""
    global _manager
    before, _manager = _manager, manager
    return before
