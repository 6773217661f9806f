"""Changes to a user's configuration file and modules, from text to text: what `advise` tries is what it hands out.

A change that cannot be made safely is not made: the answer is None then, and says nothing of why. Comments and layout
stay, since the result is shown to people as a diff.
"""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

HOOKS = {"post_worker_init": "worker", "post_fork": "server, worker", "when_ready": "server"}
"""gunicorn's hooks in which a loop can be started, and their arguments."""

_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True)
class Start:
    """A module whose loop does not start at import any more, and the function in it that starts the loop."""

    text: str
    function: str


def setting(text: str, name: str, value: object) -> str | None:
    """A configuration file with a setting; the last of its lines wins, as in gunicorn.

    >>> setting("workers = 2  # one a core\\n", "workers", 1)
    'workers = 1  # one a core\\n'
    """
    tree = _parse(text)
    if tree is None:
        return None
    places = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == name]
    assigned = [
        node for node in tree.body
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and node.targets[0] in places
    ]  # fmt: skip
    if len(places) == 1 and assigned:
        begin, end = _span(text, assigned[0].value)
        return _checked(_put(text, begin, end, repr(value)))
    return _checked(f"{_ended(text)}{name} = {value!r}\n")


def patch_calls(text: str) -> list[dict[str, bool]]:
    """The flags of each call of gevent's `patch_all` that stands by itself at the top of a module."""
    tree = _parse(text)
    return [_flags(call) for _, call in _patches(tree)] if tree is not None else []


def patched(text: str) -> str | None:
    """The same with `patch_all()` as the first thing that it does."""
    tree = _parse(text)
    if tree is None:
        return None
    after = 0
    for node in tree.body:
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if not docstring and not (isinstance(node, ast.ImportFrom) and node.module == "__future__"):
            break
        after = node.end_lineno or 0
    lines = text.splitlines(keepends=True)
    while after == 0 and lines and re.match(r"#!|#.*coding[:=]", lines[0]):
        return _join(lines[:1], patched("".join(lines[1:])))
    rest = "".join(lines[after:]).lstrip("\n")
    head = _ended("".join(lines[:after]))
    block = "from gevent import monkey\n\nmonkey.patch_all()\n"
    return _checked(f"{head}{chr(10) if head else ''}{block}{chr(10) if rest else ''}{rest}")


def _join(head: Sequence[str], rest: str | None) -> str | None:
    return None if rest is None else "".join(head) + rest


def unpatched(text: str) -> str | None:
    """The same without gevent's `patch_all` at its top, nor the import that was for it alone."""
    found: str | None = text
    while found is not None:
        tree = _parse(found)
        calls = list(_patches(tree)) if tree is not None else []
        if not calls:
            break
        found = _checked(_cut(found, calls[0][0]))
    return None if found is None else _checked(_without_import(found))


def _without_import(text: str) -> str:
    tree = _parse(text)
    for node in tree.body if tree is not None else ():
        gevents = isinstance(node, ast.ImportFrom) and node.module in ("gevent", "gevent.monkey")
        gevents = gevents or (isinstance(node, ast.Import) and node.names[0].name == "gevent.monkey")
        if gevents and isinstance(node, (ast.Import, ast.ImportFrom)) and len(node.names) == 1:
            alias = node.names[0]
            name = alias.asname or alias.name.partition(".")[0]
            used = {one.id for one in ast.walk(tree) if isinstance(one, ast.Name)} if tree is not None else {name}
            if name not in used and alias.name in ("monkey", "gevent.monkey", "patch_all"):
                return _cut(text, node).lstrip("\n")
    return text


def patching_everything(text: str) -> str | None:
    """The same with every `patch_all(...)` at its top without flags."""
    found: str | None = text
    while found is not None:
        tree = _parse(found)
        calls = [call for _, call in _patches(tree) if call.args or call.keywords] if tree is not None else []
        if not calls:
            break
        end = _span(found, calls[0])[1]
        found = _checked(_put(found, _span(found, calls[0].func)[1], end, "()"))
    return found


def _patches(tree: ast.Module | None) -> Iterator[tuple[ast.stmt, ast.Call]]:
    for node in tree.body if tree is not None else ():
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            name = getattr(node.value.func, "attr", getattr(node.value.func, "id", ""))
            if name == "patch_all":
                yield node, node.value


def _flags(call: ast.Call) -> dict[str, bool]:
    return {
        keyword.arg: bool(keyword.value.value)
        for keyword in call.keywords
        if keyword.arg is not None and isinstance(keyword.value, ast.Constant)
    }


# --- where a loop starts


def into_function(text: str, line: int, called: str, keep: str = "") -> Start | None:
    """A module in which what line `line` does at import, or in a function, is done when a new function is called.

    `called` is what the function is named after; a statement that makes the name `keep` stays where it is. A statement
    that is but the call of a function of the module needs no new one.
    """
    tree = _parse(text)
    if tree is None:
        return None
    outer = next((node for node in tree.body if node.lineno <= line <= (node.end_lineno or 0)), None)
    if outer is None or isinstance(outer, (ast.Import, ast.ImportFrom, ast.ClassDef)):
        return None
    if isinstance(outer, _FUNCTIONS):
        return _out_of_function(text, tree, outer, line, called)
    bound = _bound(outer)
    later = tree.body[tree.body.index(outer) + 1 :]
    if bound is None or keep in bound or bound & set().union(*(_read_at_import(node) for node in later), set()):
        return None
    own = _plain_call(tree, outer)
    if own is not None:
        return _start(_cut(text, outer), own)
    name = _free_name(text, called)
    body = _indented(text, outer, sorted(bound))
    if body is None:
        return None
    begin, end = _span(text, outer)
    if _alone(text, begin, end):
        return _start(_put(text, begin, end, _spaced(text, begin, f"def {name}():\n{body}", end)), name)
    return _start(f"{_ended(_cut(text, outer))}\n\ndef {name}():\n{body}\n", name)


def _out_of_function(text: str, tree: ast.Module, outer: ast.stmt, line: int, called: str) -> Start | None:
    """What a function of the module does in one statement that needs none of the function's own names."""
    chain: list[ast.AST] = [outer]
    found: tuple[ast.stmt, list[ast.stmt]] | None = None
    while True:
        inner = _inside(chain[-1], line)
        if inner is None:
            break
        statement, siblings = inner
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
            found = statement, siblings
            break
        chain.append(statement)
    if found is None:
        return None
    statement, siblings = found
    if {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)} & _locals(chain):
        return None
    own = _plain_call(tree, statement)
    begin, end = _span(text, statement)
    without = _put(text, begin, end, "pass") if len(siblings) == 1 else _cut(text, statement)
    if own is not None:
        return _start(without, own)
    name = _free_name(text, called)
    body = _indented(text, statement, [])
    return None if body is None else _start(f"{_ended(without)}\n\ndef {name}():\n{body}\n", name)


def _inside(node: ast.AST, line: int) -> tuple[ast.stmt, list[ast.stmt]] | None:
    for name in ("body", "orelse", "finalbody", "handlers"):
        siblings = getattr(node, name, [])
        for one in siblings if isinstance(siblings, list) else []:
            if one.lineno <= line <= (one.end_lineno or 0):
                return (one, siblings) if isinstance(one, ast.stmt) else _inside(one, line)
    return None


def _locals(chain: Sequence[ast.AST]) -> set[str]:
    """The names that functions and classes around a statement have of their own."""
    found: set[str] = set()
    for node in chain:
        if isinstance(node, _FUNCTIONS):
            given = node.args
            every = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
            found |= {one.arg for one in every if one is not None}
            told = {name for one in ast.walk(node) if isinstance(one, ast.Global) for name in one.names}
            found |= _stored(node.body) - told
        elif isinstance(node, ast.ClassDef):
            found |= _stored(node.body)
    return found


def _stored(body: Sequence[ast.stmt]) -> set[str]:
    found: set[str] = set()
    for statement in body:
        for node in ast.walk(statement):
            if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
                found.add(node.id)
            elif isinstance(node, (*_FUNCTIONS, ast.ClassDef)):
                found.add(node.name)
            elif isinstance(node, ast.alias):
                found.add((node.asname or node.name).partition(".")[0])
            elif isinstance(node, ast.ExceptHandler) and node.name:
                found.add(node.name)
    return found


def _bound(statement: ast.stmt) -> set[str] | None:
    """The names that a statement makes; None where it makes more than a function could pass on."""
    if any(isinstance(node, (*_FUNCTIONS, ast.ClassDef, ast.Delete)) for node in ast.walk(statement)):
        return None
    if any(isinstance(node, ast.alias) and node.name == "*" for node in ast.walk(statement)):
        return None
    return _stored([statement])


def _read_at_import(statement: ast.stmt) -> set[str]:
    """The names that a statement uses when the module is imported: not what its functions use once they are called."""
    found: set[str] = set()
    todo: list[ast.AST] = [statement]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Name):
            found.add(node.id)
        if isinstance(node, (*_FUNCTIONS, ast.Lambda)):
            todo += [*getattr(node, "decorator_list", ()), *node.args.defaults]
            todo += [default for default in node.args.kw_defaults if default is not None]
        else:
            todo += ast.iter_child_nodes(node)
    return found


def _plain_call(tree: ast.Module, statement: ast.stmt) -> str | None:
    """The function of the module that a statement calls without arguments, and does nothing else."""
    call = statement.value if isinstance(statement, ast.Expr) else None
    if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and not call.args and not call.keywords:
        name = call.func.id
        if any(isinstance(node, ast.FunctionDef) and node.name == name for node in tree.body):
            return name
    return None


def _free_name(text: str, called: str) -> str:
    words = re.sub(r"\W+", "_", called.rpartition(".")[2]).strip("_").lower() or "loop"
    name, number = f"start_{words}", 1
    while re.search(rf"\b{name}\b", text):
        number += 1
        name = f"start_{words}_{number}"
    return name


def _indented(text: str, statement: ast.stmt, names: Sequence[str]) -> str | None:
    """A statement as the body of a function; None where indenting it would change what it says."""
    for node in ast.walk(statement):
        texts = isinstance(node, ast.JoinedStr) or (
            isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes))
        )
        if texts and getattr(node, "lineno", 0) != getattr(node, "end_lineno", 0):
            return None
    begin, end = _span(text, statement)
    lines = _slice(text, begin, end).splitlines()
    more = " " * (4 - statement.col_offset)
    body = [f"    {lines[0]}"]
    for line in lines[1:]:
        if statement.col_offset <= 4:
            body.append(more + line if line.strip() else line)
        else:
            body.append(line[statement.col_offset - 4 :] if not line[: statement.col_offset - 4].strip() else line)
    told = [f"    global {', '.join(names)}"] if names else []
    return "\n".join([*told, *body])


def _start(text: str, name: str) -> Start | None:
    checked = _checked(text)
    return None if checked is None else Start(checked, name)


def as_daemon(text: str, line: int) -> str | None:
    """The same with a thread or process that line `line` starts as a daemon; every other line stays where it is.

    >>> as_daemon("Thread(target=listen).start()\\n", 1)
    'Thread(target=listen, daemon=True).start()\\n'
    """
    tree = _parse(text)
    starts = [
        node for node in ast.walk(tree or ast.Module([], []))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "start"
        and node.lineno <= line <= (node.end_lineno or 0)
    ]  # fmt: skip
    if tree is None or len(starts) != 1 or not isinstance(starts[0].func, ast.Attribute):
        return None
    begun = starts[0].func.value
    made = begun
    if isinstance(begun, ast.Name):
        values = [
            node.value for node in ast.walk(tree)
            if isinstance(node, ast.Assign) and [ast.dump(one) for one in node.targets] == [_dump_stored(begun)]
        ]  # fmt: skip
        made = values[0] if len(values) == 1 else begun
    if (
        not isinstance(made, ast.Call)
        or getattr(made.func, "attr", getattr(made.func, "id", "")) not in _MAY_BE_DAEMONS
    ):
        return None
    given = next((keyword for keyword in made.keywords if keyword.arg == "daemon"), None)
    if given is not None:
        return _checked(_put(text, *_span(text, given.value), "True"))
    last = max((_span(text, one)[1] for one in (*made.args, *made.keywords)), default=None)
    if last is None:
        return _checked(_put(text, _span(text, made)[1] - 1, _span(text, made)[1] - 1, "daemon=True"))
    return _checked(_put(text, last, last, ", daemon=True"))


_MAY_BE_DAEMONS = ("Thread", "Process")


def _dump_stored(name: ast.Name) -> str:
    return ast.dump(ast.Name(name.id, ast.Store()))


def in_hook(text: str, hook: str, module: str, function: str) -> str | None:
    """A configuration file whose hook also calls a function of one of the app's modules."""
    tree = _parse(text)
    if tree is None:
        return None
    lines = [f"from {module} import {function}", "", f"{function}()"]
    named = [node for node in tree.body if isinstance(node, _FUNCTIONS) and node.name == hook]
    stored = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == hook]
    if stored or len(named) > 1:
        return None
    if not named:
        block = f"def {hook}({HOOKS[hook]}):\n" + "".join(f"    {line}\n" if line else "\n" for line in lines)
        head = _ended(text)
        return _checked(f"{head}{chr(10) * 2 if head else ''}{block}")
    last = named[0].body[-1]
    if last.lineno == named[0].lineno or isinstance(last, ast.Return):
        return None
    indent = " " * named[0].body[0].col_offset
    all_lines = _ended(text).splitlines(keepends=True)
    new = [f"{indent}{line}\n" if line else "\n" for line in lines]
    at = last.end_lineno or 0
    return _checked("".join([*all_lines[:at], "\n", *new, *all_lines[at:]]))


def diff(changes: Mapping[str, tuple[str | None, str]]) -> str:
    """What `patch -p1` makes of each file, {path: (before, after)}; one that was None before is new."""
    parts: list[str] = []
    for path, (before, after) in changes.items():
        old = "/dev/null" if before is None else f"a/{path}"
        lines = (before or "").splitlines(keepends=True), after.splitlines(keepends=True)
        for line in difflib.unified_diff(*lines, old, f"b/{path}"):
            parts.append(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n")
    return "".join(parts)


# --- text


def _parse(text: str) -> ast.Module | None:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError):
        return None


def _checked(text: str) -> str | None:
    return text if _parse(text) is not None else None


def _ended(text: str) -> str:
    return text if not text or text.endswith("\n") else text + "\n"


def _span(text: str, node: ast.AST) -> tuple[int, int]:
    """Where a node begins and ends, in bytes of UTF-8: that is what the parser counts."""
    lines = text.encode().splitlines(keepends=True)

    def offset(line: int, column: int) -> int:
        return sum(len(one) for one in lines[: line - 1]) + column

    begin = offset(getattr(node, "lineno", 1), getattr(node, "col_offset", 0))
    return begin, offset(getattr(node, "end_lineno", 1), getattr(node, "end_col_offset", 0))


def _slice(text: str, begin: int, end: int) -> str:
    return text.encode()[begin:end].decode()


def _put(text: str, begin: int, end: int, new: str) -> str:
    found = text.encode()
    return (found[:begin] + new.encode() + found[end:]).decode()


def _line(text: str, begin: int, end: int) -> tuple[str, str]:
    """What stands on its lines before and after a span."""
    found = text.encode()
    first, last = found.rfind(b"\n", 0, begin) + 1, found.find(b"\n", end)
    return found[first:begin].decode(), found[end : last if last >= 0 else len(found)].decode()


def _alone(text: str, begin: int, end: int) -> bool:
    before, after = _line(text, begin, end)
    return not before.strip() and (not after.strip() or after.strip().startswith("#"))


def _cut(text: str, node: ast.stmt) -> str:
    """The text without a statement that is not the only one of its block."""
    begin, end = _span(text, node)
    before, after = _line(text, begin, end)
    if _alone(text, begin, end):
        last = end + len(after.encode()) + 1
        return _put(text, begin - len(before.encode()), min(last, len(text.encode())), "")
    following = re.match(r"\s*;\s*", after)
    if following and following.end() < len(after):
        return _put(text, begin, end + following.end(), "")
    kept = before.rstrip().removesuffix(";").rstrip()
    return _put(text, begin - len(before.encode()), end + (following.end() if following else 0), kept)


def _spaced(text: str, begin: int, block: str, end: int) -> str:
    """A definition with the two lines around it that people leave there."""
    found = text.encode()
    before, after = found[:begin].decode(), found[end:].decode()
    missing = 0 if not before.strip() else max(0, 3 - (len(before) - len(before.rstrip("\n"))))
    rest = after.partition("\n")[2]
    lacking = 0 if not rest.strip() else max(0, 2 - (len(rest) - len(rest.lstrip("\n"))))
    return "\n" * missing + block + "\n" * lacking
