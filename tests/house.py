"""The modules of the project and what each imports, from their syntax trees: for the tests of the layout."""

import ast
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent
ROOMS = ("reporting", "inference", "training", "preprocessing", "common")  # each imports from those after it alone
MAY_IMPORT = {room: set(ROOMS[place:]) for place, room in enumerate(ROOMS)} | {
    "phantom": {"phantom", "preprocessing", "common"}
}

Sources = dict[str, str]  # module, like models.common.files -> its text


def sources() -> Sources:
    """All modules of the package, and radam."""
    paths = [REPOSITORY / "radam.py", *sorted((REPOSITORY / "models").rglob("*.py"))]
    return {module_of(path): path.read_text() for path in paths}


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")


def room_of(module: str) -> str | None:
    """The folder of a module; None for radam and for scripts, which may import anything."""
    parts = module.split(".")
    return parts[1] if len(parts) > 2 else parts[1] if len(parts) == 2 and parts[1] in MAY_IMPORT else None


def is_script(module: str) -> bool:
    return module.startswith("models.") and room_of(module) is None


def imports(text: str, everywhere: bool = True) -> Iterator[str]:
    """What a module imports, names of modules and of what is taken from them; `everywhere`: in its functions, too."""
    for node in nodes(ast.parse(text), everywhere):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def nodes(tree: ast.AST, everywhere: bool) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        is_for_types = isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        is_later = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or is_for_types
        if everywhere or not is_later:
            yield node
            yield from nodes(node, everywhere)


def wrong_imports(modules: Sources) -> list[str]:
    """A line for each import from a room that the importing one must not know, or from a script."""
    lines = []
    for module, text in modules.items():
        if (room := room_of(module)) is None:
            continue
        for name in imports(text):
            if is_script(name) and name in modules:
                lines.append(f"{module} imports the script {name}")
            elif name.startswith("models.") and (other := name.split(".")[1]) not in MAY_IMPORT[room]:
                lines.append(f"{module} imports from {other}")
    return lines


def needed_at_start(module: str, modules: Sources) -> set[str]:
    """Everything that is imported when a module is, within the project and from other packages."""
    found, waiting = set(), {module}
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        if name in modules:
            waiting |= set(imports(modules[name], everywhere=False))
    return found


def circles(modules: Sources) -> list[str]:
    """Modules that are needed by something that they need."""
    direct = {name: {other for other in imports(text) if other in modules} for name, text in modules.items()}

    def reached(start: str) -> set[str]:
        found, waiting = set(), set(direct[start])
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting |= direct[name]
        return found

    return [name for name in modules if name in reached(name)]
