"""Who imports whom: every arrow goes down, and opening the front door costs nothing."""

from __future__ import annotations

import ast
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAY = {
    "captioning": set(),
    "inversion": set(),
    "edit": {"inversion"},
    "p2p_real": {"captioning", "inversion", "edit"},
}
DIFFUSERS = ("p2p_real/backbones/", "p2p_real/tabletop/", "p2p_real/bench/")
FILES = sorted(f for package in MAY for f in (ROOT / package).rglob("*.py"))


def module_of(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(f): f for f in FILES}


def for_types_only(tree: ast.Module) -> set[ast.AST]:
    """Everything below ``if TYPE_CHECKING:``, which never runs."""
    blocks = [
        n
        for n in ast.walk(tree)
        if isinstance(n, ast.If) and ast.unparse(n.test).endswith("TYPE_CHECKING")
    ]
    return {n for block in blocks for part in block.body for n in ast.walk(part)}


def imports(file: Path, *, at_import: bool) -> Iterator[str]:
    """Absolute names of the modules a file imports.

    Args:
        file: the file.
        at_import: only those that run when the file is imported.
    """
    tree = ast.parse(file.read_text(encoding="utf-8"))
    here = module_of(file).split(".")
    package = here if file.name == "__init__.py" else here[:-1]
    skip = for_types_only(tree)
    if at_import:
        for n in ast.walk(tree):
            if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                skip |= {m for part in ast.iter_child_nodes(n) for m in ast.walk(part)}
    for node in ast.walk(tree):
        if node in skip:
            continue
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, *(node.module.split(".") if node.module else [])])
            for a in node.names:
                inner = f"{stem}.{a.name}"
                yield inner if inner in MODULES else stem


@pytest.mark.parametrize("file", FILES, ids=module_of)
def test_arrows_go_down(file: Path) -> None:
    home = module_of(file).split(".")[0]
    for name in imports(file, at_import=False):
        top = name.split(".")[0]
        if top in MAY and top != home:
            assert top in MAY[home], f"{module_of(file)} imports {name}"
        assert top != "tests", f"{module_of(file)} imports the tests"
        if top == "diffusers":
            place = file.relative_to(ROOT).as_posix()
            assert place.startswith(DIFFUSERS), f"{module_of(file)} imports diffusers"


def test_methods_stand_above_what_they_are_made_of() -> None:
    """Registries find methods by looking; nobody below imports one by name."""
    for name, file in MODULES.items():
        if not name.startswith(("inversion", "edit")) or ".methods" in name:
            continue
        found = [i for i in imports(file, at_import=False) if ".methods." in i]
        assert not found, f"{name} imports {found}"


def test_no_cycles() -> None:
    """Between modules, counting what runs on import; a parent package is a way in, not a need."""
    graph = {
        name: {i for i in imports(file, at_import=True) if i in MODULES and i != name}
        for name, file in MODULES.items()
    }
    done: set[str] = set()

    def walk(name: str, way: list[str]) -> None:
        assert name not in way, " -> ".join([*way[way.index(name) :], name])
        if name in done:
            return
        for other in sorted(graph[name]):
            walk(other, [*way, name])
        done.add(name)

    for name in graph:
        walk(name, [])
    assert done == set(MODULES)


def test_the_parser_sees_what_it_should() -> None:
    """The checks above would pass on a parser that finds nothing."""
    found = set(imports(MODULES["edit.control"], at_import=True))
    assert {"inversion.denoiser", "inversion.sampling", "torch"} <= found
    assert "edit.words" in set(imports(MODULES["edit.align"], at_import=True))
    assert "diffusers" in set(imports(MODULES["p2p_real.backbones.base"], at_import=True))
    lazily = set(imports(MODULES["p2p_real.backbones"], at_import=False))
    assert "p2p_real.backbones.base" not in lazily  # for types only
    assert "p2p_real.backbones.loading" in lazily
    assert "p2p_real.backbones.loading" not in set(
        imports(MODULES["p2p_real.backbones"], at_import=True)
    )


def python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_front_door_costs_nothing(record_property: Callable[[str, object], None]) -> None:
    code = (
        "import sys, time; start = time.perf_counter(); import p2p_real; "
        "print(time.perf_counter() - start); "
        "print(*sorted({m.split('.')[0] for m in sys.modules}))"
    )
    seconds, loaded = python(code).splitlines()
    record_property("seconds of import p2p_real", float(seconds))
    heavy = {"torch", "numpy", "PIL", "diffusers", "transformers", "safetensors", "tqdm"}
    assert not heavy & set(loaded.split())


@pytest.mark.parametrize("package", ["captioning", "inversion", "edit"])
def test_each_floor_stands_alone(package: str) -> None:
    """A floor can be imported first, and brings no floor above it."""
    start = time.perf_counter()
    loaded = set(python(f"import sys, {package}; print(*sys.modules)").split())
    tops = {m.split(".")[0] for m in loaded} & set(MAY)
    assert tops <= {package} | MAY[package]
    assert "diffusers" not in loaded
    assert time.perf_counter() - start < 120


def test_public_names_are_there() -> None:
    import edit
    import inversion

    for package in (edit, inversion):
        for name in package.__all__:
            assert hasattr(package, name)
    assert python("import p2p_real; print(p2p_real.Editor.__name__)").strip() == "Editor"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        __import__("p2p_real").nothing  # noqa: B018
