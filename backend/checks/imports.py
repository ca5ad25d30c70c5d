"""What imports what, read from the source without running it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Import:
    """One import: module `source` brings in `target`, at a line of a file."""

    source: str
    target: str
    path: Path
    line: int
    lazy: bool = False  # inside a function: it happens when that runs, if ever, and maybe in another process


def modules(root: Path) -> dict[str, Path]:
    """Every module of the product by its dotted name: `app`, `pages.*`, `backend.*`."""
    files = [root / "app.py", *sorted((root / "pages").rglob("*.py")), *sorted((root / "backend").rglob("*.py"))]
    return {_name(path.relative_to(root)): path for path in files if path.exists()}


def _name(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(root: Path) -> list[Import]:
    """Every import in every module, inside functions too; only those for type checkers are left out."""
    known = modules(root)
    found = []
    for name, path in known.items():
        tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        for node, lazy in _running(tree):
            place = path.relative_to(root)
            found += [Import(name, target, place, node.lineno, lazy) for target in _targets(node, package, known)]
    return found


def _running(node: ast.AST, lazy: bool = False) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            for other in child.orelse:
                yield from _running(other, lazy)
        elif isinstance(child, ast.Import | ast.ImportFrom):
            yield child, lazy
        else:
            yield from _running(child, lazy or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda))


def _targets(node: ast.Import | ast.ImportFrom, package: str, known: dict[str, Path]) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    base = node.module or ""
    if node.level:
        parents = package.split(".")[: len(package.split(".")) - node.level + 1]
        base = ".".join([*parents, *([base] if base else [])])
    # `from package import module` brings in the module; `from module import name` brings in the module it is in.
    return [f"{base}.{a.name}" if f"{base}.{a.name}" in known else base for a in node.names]


def reached(start: str, edges: dict[str, list[Import]]) -> dict[str, list[Import]]:
    """Everything that importing `start` may bring in, each with the chain of imports that leads there."""
    chains: dict[str, list[Import]] = {start: []}
    queue = [start]
    while queue:
        module = queue.pop(0)
        for step in edges.get(module, []):
            if step.target not in chains:
                chains[step.target] = [*chains[module], step]
                queue.append(step.target)
    return chains
