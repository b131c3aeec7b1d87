"""The house rules: a light facade, imports that flow one way, and a wheel that holds every room."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import hiddenscope

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = REPOSITORY / "src" / "hiddenscope"
ROOMS = ("callbacks", "embeddings", "analyses", "dashboard", "experiments")
MAY_IMPORT = {
    "core": set(),
    "callbacks": {"core"},
    "embeddings": {"core"},
    "analyses": {"core", "embeddings"},
    "dashboard": {"core", "embeddings", "analyses"},
    "experiments": {"core", "callbacks", "embeddings", "analyses", "dashboard"},
}
# Libraries that must not be loaded by importing every module of a room.
MUST_NOT_LOAD = {
    "core": {"torch", "pytorch_lightning", "lightning", "plotly", "dash", "phate", "graphtools", "sklearn", "numba"},
    "callbacks": {"plotly", "dash", "phate", "graphtools", "numba"},
    "embeddings": {"torch", "pytorch_lightning", "lightning", "plotly", "dash", "umap", "openTSNE"},
    "analyses": {"torch", "pytorch_lightning", "lightning", "plotly", "dash", "umap", "openTSNE"},
}


def modules_of(room: str) -> list[str]:
    folder = PACKAGE if room == "core" else PACKAGE / room
    paths = folder.glob("*.py") if room == "core" else folder.rglob("*.py")
    names = [".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in paths]
    return sorted(name.removesuffix(".__init__") for name in names if not name.endswith("__main__"))


def source_of(module: str) -> Path:
    path = PACKAGE.parent / Path(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def room_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in ROOMS else "core"


def imports_of(module: str) -> Iterator[str]:
    """Every hiddenscope module that ``module`` imports, wherever in its text."""
    for node in ast.walk(ast.parse(source_of(module).read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "hiddenscope")
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "hiddenscope":
            for alias in node.names:
                child = f"{node.module}.{alias.name}"
                is_module = source_of(child).exists()
                yield child if is_module else node.module


def loaded_by(statement: str) -> set[str]:
    """Top-level names in ``sys.modules`` after a statement in a fresh interpreter."""
    program = (
        f"{statement}\nimport json, sys\nprint(json.dumps(sorted({{name.split('.')[0] for name in sys.modules}})))"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_every_room_has_modules() -> None:
    assert all(len(modules_of(room)) > 1 for room in ("core", *ROOMS))


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_import_arrows_never_turn_back(room: str) -> None:
    allowed = MAY_IMPORT[room] | {room}
    facade = {"hiddenscope"}  # lists every name for type checkers; loads none
    turned_back = {
        f"{module} imports {target}"
        for module in set(modules_of(room)) - facade
        for target in imports_of(module)
        if room_of(target) not in allowed
    }
    assert not turned_back


@pytest.mark.parametrize("room", MUST_NOT_LOAD)
def test_a_room_loads_only_what_it_may(room: str) -> None:
    loaded = loaded_by("\n".join(f"import {module}" for module in modules_of(room)))
    assert not loaded & MUST_NOT_LOAD[room]


def test_the_facade_loads_nothing_until_a_name_is_touched() -> None:
    loaded = loaded_by("import hiddenscope")
    assert not loaded & {"numpy", "pandas", "xarray", "zarr", "torch", "plotly", "dash", "phate", "sklearn"}


def test_every_public_name_can_be_fetched_and_is_listed() -> None:
    for name in hiddenscope.__all__:
        assert getattr(hiddenscope, name) is not None
        assert name in dir(hiddenscope)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = hiddenscope.nonsense


def test_the_listing_for_type_checkers_names_what_the_facade_fetches() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    typed = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.If)
        for statement in node.body
        if isinstance(statement, ast.ImportFrom | ast.Import)
        for alias in statement.names
    }
    assert typed == set(hiddenscope.__all__) - {"__version__"}


def test_the_wheel_holds_every_module_and_asset(tmp_path: Path) -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    source = tmp_path / "source"
    for name in tracked.splitlines():
        if not (REPOSITORY / name).exists() and not (REPOSITORY / name).is_symlink():
            continue  # removed, not yet committed
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(REPOSITORY / name, target, follow_symlinks=False)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "--wheel-dir", tmp_path, source], check=True, capture_output=True, text=True)
    (wheel,) = tmp_path.glob("*.whl")
    inside = set(zipfile.ZipFile(wheel).namelist())
    wanted = {
        str(path.relative_to(source / "src"))
        for room in ("", *ROOMS)
        for path in (source / "src" / "hiddenscope" / room).rglob("*")
        if path.suffix in {".py", ".css", ".js", ".html", ".typed"}
    }
    assert len(wanted) > len(ROOMS)
    assert wanted | {"hiddenscope/py.typed"} <= inside
