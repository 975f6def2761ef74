"""Property tests: later layers override earlier ones, for every setting and each of its names."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.config.choices import CHOICES
from durable_streams.server.config.conversion import KINDS
from durable_streams.server.config.layers import PROFILES, LoadedSettings, load, read_layers
from durable_streams.server.config.legacy import LEGACY, RUST_LOG
from durable_streams.server.config.validation import ConfigError

from .test_layers import defaults, get, variable


class Said(NamedTuple):
    """A value that a layer can set, and the resulting value of the setting."""

    value: Any
    meant: Any


_TEXTS = st.text("abcXYZ019 ./:-_\\\"#'=[]{}\u00e9\u2603", min_size=1, max_size=12).map(str.strip).filter(bool)
_ITEMS = _TEXTS.filter(lambda text: "," not in text)
_PLAIN: dict[Any, st.SearchStrategy[Said]] = {
    int: st.integers(-(10**18) + 1, 10**18 - 1).map(lambda number: Said(number, number)),
    bool: st.booleans().map(lambda switch: Said(switch, switch)),
    str: _TEXTS.map(lambda text: Said(text, text)),
    tuple[str, ...]: st.lists(_ITEMS, max_size=3).map(lambda items: Said(items, tuple(items))),
}
_FILTERS = {"trace": "debug", "OFF": "error", "warn,hyper=info": "warn", "durable_streams_server=debug,info": "debug"}


def said_of(name: str) -> st.SearchStrategy[Said]:
    """Draw a value for a setting or for a deprecated name."""
    if name == "server.port":
        return st.integers(0, 65535).map(lambda port: Said(port, f"0.0.0.0:{port}"))
    if LEGACY.get(name) == "observability.log_level":
        return st.sampled_from([Said(text, level) for text, level in _FILTERS.items()])
    name = LEGACY.get(name, name)
    words = CHOICES.get(name)
    if words is None:
        return _PLAIN[KINDS[name]]
    if KINDS[name] is str:
        return st.sampled_from([Said(word, meant) for word, meant in words.items()])
    return st.lists(st.sampled_from(sorted(words)), max_size=3).map(
        lambda items: Said(items, tuple(dict.fromkeys(words[item] for item in items)))
    )


NAMES = [*KINDS, *(name for name in LEGACY if name != RUST_LOG)]
Layer = dict[str, Said]


@st.composite
def layers(draw: st.DrawFn, *more: str) -> Layer:
    """Draw the values of a layer."""
    names = draw(st.lists(st.sampled_from([*NAMES, *more]), max_size=12, unique=True))
    return {name: draw(said_of(name)) for name in names}


def toml(layer: Layer) -> str:
    """Write a layer as a file, with other quotes and escapes than those that the settings are printed with."""

    def written(value: Any) -> str:
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, int):
            return str(value)
        if isinstance(value, list):
            return "[" + ", ".join(map(written, value)) + "]"
        return '"' + "".join(f"\\U{ord(character):08x}" for character in value) + '"'

    return "".join(f"{name} = {written(said.value)}\n" for name, said in layer.items())


def variables(layer: Layer) -> dict[str, str]:
    """Write a layer as an environment."""

    def written(value: Any) -> str:
        if isinstance(value, bool):
            return str(value).lower()
        return str(value)

    def listed(name: str, value: Any) -> str:
        return ("\n" if name == "auth.rules" else " , ").join(value) if isinstance(value, list) else written(value)

    return {name if name == RUST_LOG else variable(name): listed(name, said.value) for name, said in layer.items()}


def expected(described: list[Layer]) -> dict[str, Any]:
    """Merge layers independently of the loader: search from the last layer for the first that sets the value."""
    found = dict(defaults())
    legacy_files = set()
    for layer in described:
        current = {name: said.meant for name, said in layer.items() if name in KINDS}
        for name in reversed(LEGACY):
            if name in layer:
                current.setdefault(LEGACY[name], layer[name].meant)
        if "transport.http.versions" in current:
            current.setdefault("transport.tls.alpn_protocols", None)
        legacy_files |= {name for name in layer if name in ("tls.cert_path", "tls.key_path")}
        found |= current
    if any("auth.rules_file" in layer for layer in described) and not any("auth.rules" in x for x in described[1:]):
        found["auth.rules"] = ()
    if len(legacy_files) == 2 and not any("transport.mode" in layer for layer in described):
        found["transport.mode"] = "tls"
    return found


class LayeringTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()

    def read(self, profile: str, files: dict[str, Layer], given: Layer | None, environment: Layer) -> LoadedSettings:
        for path in self.folder.iterdir():
            path.unlink()
        for name, layer in files.items():
            (self.folder / f"{name}.toml").write_text(toml(layer), encoding="utf-8")
        file = None
        if given is not None:
            file = str(self.folder / "given")
            Path(file).write_text(toml(given), encoding="utf-8")
        return read_layers(profile, file, variables(environment), str(self.folder))

    @settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        st.sampled_from(sorted(PROFILES)),
        st.dictionaries(st.sampled_from(["default", "local", "dev", "prod", "prod-tls"]), layers(), max_size=4),
        st.none() | layers(),
        layers(RUST_LOG),
    )
    def test_later_layers_override_earlier_ones(
        self, profile: str, files: dict[str, Layer], given: Layer | None, environment: Layer
    ) -> None:
        loaded = self.read(profile, files, given, environment)
        built_in = {name: Said(value, value) for name, value in PROFILES[profile].items()}
        of_folder = [files.get(name, {}) for name in dict.fromkeys(("default", profile, "local"))]
        wanted = expected([built_in, *of_folder, given or {}, environment])
        self.assertEqual(wanted, {name: get(loaded.settings, name) for name in KINDS})
        self.assertEqual((), loaded.warnings)
        unchanged = {name for name, default in defaults() if wanted[name] == default}
        self.assertEqual(set(), KINDS.keys() - unchanged - loaded.sources.keys())

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.data(), st.sampled_from(NAMES), st.sets(st.integers(0, 4), min_size=1))
    def test_layers_are_merged_as_by_a_simple_model(self, data: st.DataObject, name: str, places: set[int]) -> None:
        said = {place: data.draw(said_of(name)) for place in sorted(places)}
        described: list[Layer] = [{name: said[place]} if place in said else {} for place in range(5)]
        files = {file: described[place] for place, file in enumerate(("default", "dev", "local"))}
        loaded = self.read("dev", files, described[3], described[4])
        setting = LEGACY.get(name, name)
        last = max(places)
        self.assertEqual(said[last].meant, get(loaded.settings, setting))
        file = ("default.toml", "dev.toml", "local.toml", "given")[min(last, 3)]
        legacy = f"{name} in " if name in LEGACY else ""
        source = f"environment variable {variable(name)}" if last == 4 else f"{legacy}{self.folder / file}"
        self.assertEqual(source, loaded.sources[setting])

    @settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(sorted(PROFILES)), layers(), layers(RUST_LOG))
    def test_any_settings_are_accepted_or_the_error_names_one_of_them(
        self, profile: str, given: Layer, environment: Layer
    ) -> None:
        read = self.read(profile, {}, given, environment)
        try:
            loaded = load(profile, str(self.folder / "given"), variables(environment), str(self.folder))
        except ConfigError as error:
            self.assertEqual("validate_config", error.phase)
            name, must_be, rest = str(error).partition(" must be ")
            self.assertTrue(must_be, error)
            source = f"; {read.sources.get(name, 'the default')} sets it to "
            self.assertTrue(source in rest or (rest.endswith("; it is not set.") and get(read.settings, name) is None))
        else:
            self.assertEqual(read.settings, loaded.settings)
