"""What the docstrings of the public surface leave unsaid, as far as syntax trees tell: for the tests of the layout."""

import ast
import re
from collections.abc import Iterator
from importlib import import_module
from typing import NamedTuple

from house import Sources

# Of words, numbers, and their sums and products: (slices, 6), (6,), (..., size, size), (slices, width + 6 networks).
_DIMENSION = r"(?:\.{3}|\w+(?: [+x] (?:\d+ )?\w+)*)"
_SHAPE = re.compile(rf"\({_DIMENSION}(?:,|(?:, {_DIMENSION})+)\)|\bscalar\b|\b(?:any|same) shape\b")
_RAISES = re.compile(r"\b[Rr]aises? (?:an )?`?InputError\b")
_ARRAY = re.compile(r"\b(?:ndarray|Tensor)\b")
_EXEMPT = re.compile(r"\b(?:dict|Callable)\[.*\]")  # tensors by name, each of a shape of its own; what a function gives


class Definition(NamedTuple):
    """A class or function of a module, or a method of a class, that is there for others."""

    module: str
    owners: list[ast.ClassDef]  # of a method: its class, and those of the module that this one comes from
    node: ast.ClassDef | ast.FunctionDef

    @property
    def name(self) -> str:
        return ".".join([self.module, *(owner.name for owner in self.owners[:1]), self.node.name])

    @property
    def says(self) -> str:
        """Its docstring and, of a method, those of its classes, on one line."""
        texts = [ast.get_docstring(node) or "" for node in (self.node, *self.owners)]
        return " ".join(" ".join(texts).split())


def definitions(modules: Sources) -> list[Definition]:
    """Of all modules; methods that Python calls, like `__init__`, among them."""
    found = []
    for module, text in modules.items():
        owners: dict[str, list[ast.ClassDef]] = {}
        for node in defined(ast.parse(text)):
            found.append(Definition(module, [], node))
            if isinstance(node, ast.ClassDef):
                bases = [owner for base in node.bases for owner in owners.get(ast.unparse(base).partition("[")[0], [])]
                owners[node.name] = [node, *bases]
                found += [Definition(module, owners[node.name], method) for method in defined(node)]
    return found


def defined(tree: ast.Module | ast.ClassDef) -> Iterator[ast.ClassDef | ast.FunctionDef]:
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not is_private(node.name):
            yield node


def is_private(name: str) -> bool:
    return name.startswith("_") and not is_of_python(name)


def is_of_python(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")


def without_docstring(modules: Sources) -> list[str]:
    """The names of definitions without a docstring; a method whose meaning is told elsewhere needs none."""
    bare = [one for one in definitions(modules) if ast.get_docstring(one.node) is None]
    return [one.name for one in bare if not one.owners or not is_told_elsewhere(one)]


def is_told_elsewhere(method: Definition) -> bool:
    """Whether it is Python's, overrides one of a base class or, in a fastai callback, has the name of an event."""
    name = method.node.name
    if is_of_python(name):
        return True
    _, *bases = getattr(import_module(method.module), method.owners[0].name).__mro__
    is_event = name.startswith(("before_", "after_")) and "Callback" in {base.__name__ for base in bases}
    return is_event or any(name in vars(base) for base in bases)


def silent_about_errors(modules: Sources) -> list[str]:
    """The names of functions that raise InputError, themselves or in a private one of their module, and do not say so.

    A method says it where its class does.
    """
    everything = definitions(modules)
    errors = {"InputError"} | {one.node.name for one in everything if returns(one.node) == "InputError"}
    private = {module: private_functions(text) for module, text in modules.items()}
    return [
        one.name
        for one in everything
        if isinstance(one.node, ast.FunctionDef)
        and raises(one.node, errors, private[one.module])
        and not _RAISES.search(one.says)
    ]


def returns(node: ast.ClassDef | ast.FunctionDef) -> str:
    return ast.unparse(node.returns) if isinstance(node, ast.FunctionDef) and node.returns else ""


def private_functions(text: str) -> dict[str, ast.FunctionDef]:
    """Functions and methods, by name."""
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
    return {node.name: node for node in functions if is_private(node.name)}


def raises(function: ast.FunctionDef, errors: set[str], private: dict[str, ast.FunctionDef]) -> bool:
    others = {name: node for name, node in private.items() if name != function.name}  # each is followed once
    for node in ast.walk(function):
        if isinstance(node, ast.Raise) and called(node.exc) in errors:
            return True
        if (name := called(node)) in others and raises(others[name], errors, others):
            return True
    return False


def called(node: ast.AST | None) -> str:
    """The last name of what is called: `repair` of `self.repair(file)`."""
    return ast.unparse(node.func).rpartition(".")[2] if isinstance(node, ast.Call) else ""


def silent_about_shapes(modules: Sources) -> list[str]:
    """The names of functions that take or give arrays, and say of none which shape it has.

    A method says it where its class does, and a function where it names, `like_this`, another one that does.
    """
    everything = definitions(modules)
    told = {one.node.name for one in everything if _SHAPE.search(one.says)}
    return [
        one.name
        for one in everything
        if isinstance(one.node, ast.FunctionDef)
        and takes_or_gives_arrays(one.node)
        and not _SHAPE.search(one.says)
        and not told & set(re.findall(r"`(?:\w+\.)*(\w+)`", one.says))
    ]


def takes_or_gives_arrays(function: ast.FunctionDef) -> bool:
    annotations = [node.annotation for node in ast.walk(function.args) if isinstance(node, ast.arg)]
    texts = [ast.unparse(node) for node in [*annotations, function.returns] if node is not None]
    return any(_ARRAY.search(_EXEMPT.sub("", text)) for text in texts)
