"""Check, from inside an environment, that what should be installed in it is there, whole, and usable.

``python -I probe.py both|client|server``.  Ends with status 1 and a sentence if something is wrong.
"""

from __future__ import annotations

import base64
import hashlib
import importlib
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from types import ModuleType

CLIENT = "durable-streams"
SERVER = "durable-streams-server"
PACKAGE = "durable_streams"


class Broken(Exception):
    """Something is not as it should be."""


def installed(name: str) -> Distribution | None:
    try:
        return distribution(name)
    except PackageNotFoundError:
        return None


def files_of(found: Distribution) -> set[Path]:
    """List the files of a distribution, each of which must be there and unchanged."""
    name = found.metadata["Name"]
    places: set[Path] = set()
    for file in found.files or ():
        place = Path(str(found.locate_file(file))).resolve()
        if file.hash is None:
            continue
        if not place.is_file():
            raise Broken(f"{name} lacks its file {file}")
        digest = hashlib.new(file.hash.mode, place.read_bytes()).digest()
        if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != file.hash.value:
            raise Broken(f"the file {file} is not the one {name} installed")
        places.add(place)
    return places


def check_distributions(expected: set[str]) -> dict[str, set[Path]]:
    """List the files of each expected distribution; none may be shared, and no other may be installed."""
    owned: dict[str, set[Path]] = {}
    for name in (CLIENT, SERVER):
        found = installed(name)
        if (found is not None) != (name in expected):
            raise Broken(f"{name} is {'not ' if found is None else ''}installed")
        if found is not None:
            owned[name] = files_of(found)
    shared = set.intersection(*owned.values()) if len(owned) > 1 else set()
    if shared:
        raise Broken(f"both distributions own {sorted(map(str, shared))}")
    return owned


def check_names(module: ModuleType, *names: str) -> None:
    missing = [name for name in names if not hasattr(module, name)]
    if missing:
        raise Broken(f"{module.__name__} offers no {', '.join(missing)}")


def check_client(files: set[Path]) -> None:
    package = importlib.import_module(PACKAGE)
    origin = Path(str(package.__file__)).resolve()
    if origin not in files or origin.name != "__init__.py":
        raise Broken(f"{PACKAGE} is imported from {origin}, which is no file of {CLIENT}")
    check_names(package, "DurableStream", "AsyncDurableStream", "stream", "astream")


def check_server(files: set[Path]) -> None:
    package = importlib.import_module(f"{PACKAGE}.server")
    check_names(package, "MemoryStorage")
    origin = Path(str(package.__file__)).resolve()
    if origin not in files:
        raise Broken(f"{PACKAGE}.server is imported from {origin}, which is no file of {SERVER}")


def check_server_is_gone() -> None:
    try:
        package = importlib.import_module(f"{PACKAGE}.server")
    except ImportError:
        return
    if hasattr(package, "MemoryStorage"):
        raise Broken(f"{PACKAGE}.server is still there")


def main(expectation: str) -> None:
    expected = {"both": {CLIENT, SERVER}, "client": {CLIENT}, "server": {SERVER}}[expectation]
    owned = check_distributions(expected)
    if CLIENT in expected:
        check_client(owned[CLIENT])
    if SERVER in expected:
        check_server(owned[SERVER])
    else:
        check_server_is_gone()


try:
    main(sys.argv[1])
except Exception as error:
    sys.exit(f"{type(error).__name__}: {error}")
