"""Which refusals there are in the source, and which test provokes each: what docs/refusals.json is made of.

    pytest -n 0 --record-refusals tests/test_cells.py

runs these tests and notes, for every refusal that they provoke, its sentence and the call that provoked it.
"""

import ast
import functools
import json
import re
import shlex
import sys
from pathlib import Path
from typing import NamedTuple

TESTS = Path(__file__).parent
ROOT = TESTS.parent
SOURCE = ROOT / "src" / "foretrace"
RECORD = ROOT / "docs" / "refusals.json"
# These say one sentence of many arguments: one example for each.
SHARED = ("_checks.py", "cli/_parse.py")
# Tests write into folders of theirs, and objects have addresses: neither belongs on a page.
FOLDER = r"/\S*?/pytest-of-\w+/pytest-\d+/[\w.-]+"
NOISE = [(rf"{FOLDER}/(?=\w)", ""), (FOLDER, "folder"), (re.escape(f"{ROOT}/"), ""), (r" at 0x\w+", "")]


class Place(NamedTuple):
    """Where the source refuses: file, function, error, and its sentence, with `{..}` for a value in it."""

    file: str
    function: str
    error: str
    sentence: str


@functools.cache
def tree_of(path):
    return ast.parse(path.read_text())


@functools.cache
def kinds():
    """`UserError`, and the names of all classes that derive from it."""
    classes = [node for path in SOURCE.rglob("*.py") for node in ast.walk(tree_of(path))]
    classes = [node for node in classes if isinstance(node, ast.ClassDef)]
    known, before = {"UserError"}, 0
    while len(known) > before:
        before = len(known)
        known |= {node.name for node in classes if {ast.unparse(base) for base in node.bases} & known}
    return known


def template(value):
    """The sentence of an f-string, with the names of its values where they have one."""
    if isinstance(value, ast.Constant):
        return str(value.value)
    if isinstance(value, ast.JoinedStr):
        return "".join(map(template, value.values))
    inner = value.value if isinstance(value, ast.FormattedValue) else value
    return f"{{{inner.id}}}" if isinstance(inner, ast.Name) else "{..}"


@functools.cache
def refusals(path):
    """The calls in a file that build a refusal, each with its `Place`."""
    places = []

    def visit(node, function):
        for child in ast.iter_child_nodes(node):
            inner = function
            if isinstance(child, ast.FunctionDef | ast.ClassDef):
                inner = f"{function}.{child.name}".lstrip(".")
            elif isinstance(child, ast.Call) and ast.unparse(child.func) in kinds():
                where = path.relative_to(SOURCE).as_posix()
                place = Place(where, function, ast.unparse(child.func), template(child.args[0]))
                # What is wrong with one checkpoint is no sentence yet, but a part of one.
                if place.error != "CheckpointError" or place.sentence.endswith("."):
                    places.append((child, place))
            visit(child, inner)

    visit(tree_of(path), "")
    return places


def all_places():
    return {place for path in SOURCE.rglob("*.py") for _, place in refusals(path)}


def is_around(node, line, column):
    begin, end = (node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset)
    return begin <= (line, column) < end


def position(frame):
    """Line and column of the call that a frame is in."""
    line, _, column, _ = list(frame.f_code.co_positions())[frame.f_lasti // 2]
    return line, column


class Literals(ast.NodeTransformer):
    """Writes short literals in place of the names that stand for them, as in a parametrised test."""

    def __init__(self, names):
        self.names = names

    def visit_Name(self, node):
        value = self.names.get(node.id, ...)
        try:
            is_literal = len(repr(value)) < 60 and ast.literal_eval(repr(value)) == value
        except (SyntaxError, ValueError):
            is_literal = False
        return ast.parse(repr(value), mode="eval").body if is_literal else node

    def visit_Attribute(self, node):
        self.generic_visit(node)
        # Under a check of types that only tests have.
        return node.value if node.attr == "__wrapped__" else node

    def visit_Call(self, node):
        self.generic_visit(node)
        arguments = []
        for each in node.args:
            is_known = isinstance(each, ast.Starred) and isinstance(each.value, ast.Tuple)
            arguments += each.value.elts if is_known else [each]
        node.args = arguments
        keywords = []
        for keyword in node.keywords:
            if keyword.arg is None and isinstance(keyword.value, ast.Dict):
                pairs = zip(keyword.value.keys, keyword.value.values, strict=True)
                keywords += [ast.keyword(key.value, value) for key, value in pairs]
            else:
                keywords.append(keyword)
        node.keywords = keywords
        return node


def call_in(frame):
    """The statement of a test that a frame is in, or the body of its lambda."""
    line, column = position(frame)
    kind = ast.Lambda if frame.f_code.co_name == "<lambda>" else ast.stmt
    # The walk goes from the outside to the inside.
    nodes = ast.walk(tree_of(Path(frame.f_code.co_filename)))
    *_, inner = [node for node in nodes if isinstance(node, kind) and is_around(node, line, column)]
    if kind is ast.Lambda:
        node = inner.body
    else:
        parts = (node for node in ast.walk(inner) if isinstance(node, ast.expr))
        node = next(node for node in parts if is_around(node, line, column))
    copied = ast.parse(ast.unparse(node))
    return ast.unparse(Literals(frame.f_locals).visit(copied))


def provoked(frame):
    """The place that a refusal came from, and the code that provoked it; None where no test did."""
    place = command = None
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if place is None and path.is_relative_to(SOURCE):
            around = [place for call, place in refusals(path) if is_around(call, *position(frame))]
            if not around:
                return None
            (place,) = around
        if path == SOURCE / "cli" / "_main.py" and frame.f_code.co_name == "_run":
            command = shlex.join(["foretrace", *map(str, frame.f_locals["words"])])
        if place and path.parent == TESTS and path.name != "conftest.py":
            return place, command or call_in(frame)
        frame = frame.f_back
    return None


class Recorder:
    """While tests run, notes the refusals that they provoke; then writes them into the record."""

    def __init__(self, error):
        """Watches every error of this class and those derived from it."""
        self.open, self.notes, self.tests = [], [], set()
        build = error.__init__

        def noted(refusal, *words):
            build(refusal, *words)
            if note := provoked(sys._getframe(1)):
                self.open.append((refusal, *note))

        error.__init__ = noted

    def pytest_runtest_logreport(self, report):
        if report.when == "call":
            test = test_of(report.nodeid)
            for refusal, place, code in self.open:
                self.notes.append(entry(place, code, str(refusal), is_shown(refusal), test))
            self.open.clear()
            if report.passed:
                self.tests.add(test)

    def pytest_sessionfinish(self):
        known = json.loads(RECORD.read_text()) if RECORD.exists() else []
        merged = {}
        others = [entry for entry in known if entry["test"] not in self.tests and is_there(entry)]
        for each in sorted([*others, *self.notes], key=_effort):
            merged.setdefault((place_of(each), each["argument"]), each)
        written = sorted(merged.values(), key=lambda entry: (place_of(entry), entry["argument"]))
        RECORD.write_text(json.dumps(written, indent=1, ensure_ascii=False) + "\n")


def test_of(name):
    """File and function of a test, as pytest names it."""
    return re.match(r"(?:tests/)?([^\s\[]+)", name)[1]


def _effort(entry):
    """What a reader would rather read comes first: what was shown, what a user would write, short calls."""
    code = entry["code"]
    is_users = code.startswith(("foretrace ", "ft."))
    return not entry["is_shown"], code.startswith("_"), not is_users, len(code), str(entry)


def is_shown(refusal):
    """Whether it came out of the source as it is; else it was caught, or became a part of another."""
    step = refusal.__traceback__
    while step is not None:
        path = Path(step.tb_frame.f_code.co_filename)
        if path.parent == TESTS or path == SOURCE / "cli" / "_main.py":
            return True
        step = step.tb_next
    return False


def entry(place, code, says, is_shown, test):
    for pattern, clean in NOISE:
        code, says = re.sub(pattern, clean, code), re.sub(pattern, clean, says)
    argument = says.partition(" must ")[0] if place.file in SHARED else ""
    about = {"argument": argument, "code": code, "says": says, "is_shown": is_shown, "test": test}
    return place._asdict() | about


def place_of(entry):
    return Place(*(entry[field] for field in Place._fields))


def is_there(entry):
    """Whether place and test of an entry still exist."""
    file, *_, name = entry["test"].split("::")
    path = TESTS / file
    tests = ast.walk(tree_of(path)) if path.exists() else ()
    has_test = any(isinstance(node, ast.FunctionDef) and node.name == name for node in tests)
    return has_test and place_of(entry) in all_places()
