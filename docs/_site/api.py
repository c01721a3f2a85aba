"""Writes docs/api: a page for each public package, with everything that it names in `__all__`."""

import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import foretrace

from . import docstrings

_BUILTIN = {name for name, _ in inspect.getmembers(tuple)} | {"count", "index"}


def packages() -> list[str]:
    """The public packages in the order in which the docstring of `foretrace` lists them, itself first."""
    listed = (foretrace.__doc__ or "").partition("packages ")[2].partition(";")[0]
    return ["foretrace", *(f"foretrace.{name}" for name in re.findall(r"`([\w.]+)`", listed))]


def public_names() -> set[str]:
    """Every public name, dotted, under each package that lists it."""
    return {f"{name}.{each}" for name in packages() for each in importlib.import_module(name).__all__}


def write(folder: Path, write_page: Any) -> None:
    """Writes a page for each package, and one that lists them."""
    rows = []
    for name in packages():
        module = importlib.import_module(name)
        write_page(folder / f"{name}.md", _page(name, module))
        rows.append(f"| [{name}]({name}.md) | {docstrings.summary_of(module)} |")
    pages = "\n".join(packages())
    write_page(
        folder / "index.md",
        "# API reference\n\nEverything public; names that are not here may change in any release "
        "([what that means](../stability.md)).\n\n| package | |\n|---|---|\n"
        + "\n".join(rows)
        + f"\n\n```{{toctree}}\n:hidden:\n\n{pages}\n```\n",
    )


def _page(name: str, module: Any) -> str:
    entries = {each: getattr(module, each) for each in sorted(module.__all__, key=_order(module))}
    rows = [
        f"| {{py:obj}}`~{name}.{each}` | {_summary(thing).replace('|', chr(92) + '|')} |"
        for each, thing in entries.items()
    ]
    return "\n\n".join(
        [
            f"# {name}",
            docstrings.markdown(docstrings.sections_of(module)),
            "\n".join(["| name | |", "|---|---|", *rows]),
            *(_entry(name, each, thing) for each, thing in entries.items()),
        ]
    )


def _order(module: Any) -> Any:
    """Functions first, then classes and other values, each by name."""
    return lambda each: (not inspect.isroutine(getattr(module, each)), each.lower())


def _summary(thing: Any) -> str:
    if inspect.isclass(thing) or inspect.isroutine(thing) or inspect.ismodule(thing):
        return docstrings.summary_of(thing)
    if isinstance(thing, dict):
        return f"By name: {', '.join(f'`{key}`' for key in thing)}."
    return f"`{thing!r}`" if len(repr(thing)) < 60 else f"A `{type(thing).__name__}`."


def _home(package: str, each: str, thing: Any) -> str | None:
    """The package below this one that lists the same thing under the same name, if there is one."""
    if inspect.ismodule(thing):
        return thing.__name__
    for name in packages():
        module = importlib.import_module(name)
        deeper = name.count(".") > package.count(".")
        if deeper and each in module.__all__ and getattr(module, each) is thing:
            return f"{name}.{each}"
    return None


def _entry(package: str, each: str, thing: Any) -> str:
    name, home = f"{package}.{each}", _home(package, each, thing)
    if home is not None:
        what = "the package" if inspect.ismodule(thing) else "the same as"
        link = f"[{home}]({home}.md)" if inspect.ismodule(thing) else f"{{py:obj}}`{home}`"
        content = f"{_summary(thing)} It is {what} {link}."
        members = ""
    elif inspect.isclass(thing) or inspect.isroutine(thing):
        content = docstrings.markdown(docstrings.sections_of(thing))
        members = _members(name, thing) if inspect.isclass(thing) else ""
    else:
        content, members = _summary(thing), ""
    kind = "class" if inspect.isclass(thing) else "function" if inspect.isroutine(thing) else "data"
    signature = _signature(thing) if kind != "data" else ""
    return f"::::::{{py:{kind}}} {name}{signature}\n\n{content}\n\n{members}\n::::::"


def _members(owner: str, thing: type) -> str:
    """Methods and properties of a class that have a docstring here, not in what it inherits from others."""
    shown = []
    for each in dir(thing):
        value = inspect.getattr_static(thing, each)
        homes = [base for base in thing.__mro__ if each in vars(base)]
        if each.startswith("_") or each in _BUILTIN or not homes[0].__module__.startswith("foretrace"):
            continue
        target = value.__func__ if isinstance(value, classmethod | staticmethod) else value
        if not (inspect.isroutine(target) or isinstance(value, property)) or not inspect.getdoc(target):
            continue
        content = docstrings.markdown(docstrings.sections_of(target))
        if isinstance(value, property):
            head = f"{{py:property}} {owner}.{each}"
        else:
            signature = _signature(target, bound=not isinstance(value, staticmethod))
            head = f"{{py:method}} {owner}.{each}{signature}"
            head += "\n:classmethod:" if isinstance(value, classmethod) else ""
        shown.append(f":::::{head}\n\n{content}\n:::::")
    return "\n\n".join(shown)


def _signature(thing: Any, bound: bool = False) -> str:
    """The signature on one line, with the last parts of the names of types."""
    try:
        signature = inspect.signature(thing)
    except ValueError:
        return "()"
    parameters = list(signature.parameters.values())
    if bound or (parameters and parameters[0].name == "_cls"):
        parameters = parameters[1:]
    returned = signature.return_annotation
    if returned is not signature.empty:
        returned = _Text(_type(returned))
    shortened = signature.replace(
        parameters=[_short(parameter) for parameter in parameters], return_annotation=returned
    )
    text = str(shortened)
    return re.sub(r"<[^<>]*(<[^<>]*>[^<>]*)*>", "...", text).replace("\n", " ")


def _short(parameter: inspect.Parameter) -> inspect.Parameter:
    annotation = parameter.annotation
    return (
        parameter.replace(annotation=_Text(_type(annotation)))
        if annotation is not parameter.empty
        else parameter
    )


class _Text:
    """Shown by `inspect` as it is."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def _type(annotation: Any) -> str:
    """An annotation with public names of foretrace in full, which become links, and all others short."""
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return re.sub(r"\b(?:[A-Za-z_]\w*\.)+[A-Za-z_]\w*", lambda match: _public(match[0]), text)


def _public(dotted: str) -> str:
    """The public name of what `foretrace._types.Cell` is; the last part of any other dotted name."""
    module, _, name = dotted.rpartition(".")
    if not module.startswith("foretrace"):
        return name
    thing = getattr(importlib.import_module(module), name, None)
    for package in packages():
        if getattr(importlib.import_module(package), name, None) is thing is not None:
            return f"{package}.{name}"
    return name
