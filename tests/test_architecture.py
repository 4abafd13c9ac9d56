"""The house as it is drawn in README.md: floors, names, programs, options files."""

import ast
import json
import os
import re
import runpy
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import pipeline.cli
from pipeline.notations import read_config_options, to_click

ROOT = Path(__file__).resolve().parents[1]
BIN = sorted((ROOT / "bin").glob("*.py"))
UTILS = sorted((ROOT / "utils").glob("*.py"))
LOCAL = sorted((ROOT / "egs").glob("*/local/*.py"))
# In local/ what begins with demo_ is a part of its neighbour make_demo_corpus.py.
PROGRAMS = [*BIN, *UTILS, *(p for p in LOCAL if not p.stem.startswith("demo_"))]
LIBRARY = sorted(p for p in (ROOT / "pipeline").rglob("*.py"))


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


# ---- floors --------------------------------------------------------------------------------------

FORMATS = {"numpy", "kaldiio", "kaldi_native_fbank", "soundfile", "soxr", "sentencepiece", "jiwer"}

# Who stands on which floor; a module counts with its package.
FLOORS: dict[str, int] = {
    "pipeline.environment": 0,
    "pipeline.errors": 0,
    "pipeline.plain_text": 0,
    "pipeline.options": 1,
    "pipeline.notations": 1,
    "pipeline.files": 0,
    "pipeline.leftovers": 0,
    "pipeline.seals": 1,
    "pipeline.shell_lock": 1,
    "pipeline.tables": 1,
    "pipeline.data": 1,
    "pipeline.frontend": 1,
    "pipeline.text": 1,
    "pipeline.jobs": 1,
    "pipeline.scoring": 1,
    "pipeline.synth": 1,
    "pipeline.kernels": 2,
    "pipeline.nn": 3,
    "pipeline.models": 4,
    "pipeline.decoding": 4,
    "pipeline.plots": 4,
    "pipeline.report": 4,
    "pipeline.training": 4,
    "pipeline.cli": 5,
}

# What a floor may import from outside, and which floors of the house.
OUTSIDE: dict[int, set[str]] = {
    0: set(),
    1: FORMATS | {"espeakng_loader", "pypinyin"},  # the recipes' demo speech, Mandarin
    2: {"torch", "numpy", "numba", "llvmlite", "triton"},
    3: {"torch"},
    4: {"torch", "numpy", "safetensors", "tensorboardX", "matplotlib", "jinja2"},
    5: {"typer"},
}
BELOW: dict[int, set[int]] = {
    0: {0},
    1: {0, 1},
    2: {0, 2},
    3: {0, 2, 3},  # and config
    4: {0, 1, 2, 3, 4},
    5: {0, 1, 2, 3, 4},
}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def floor(module: str) -> int:
    found = [n for name, n in FLOORS.items() if module == name or module.startswith(name + ".")]
    assert found, f"{module}: say in FLOORS on which floor it stands"
    return found[0]


@cache
def imports(path: Path) -> frozenset[str]:
    """Full names of all modules that a file imports, inside functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            assert node.module is not None
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            modules = {name for name in inside if is_module(name)}
            names |= modules or {node.module}
    return frozenset(names)


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return name.startswith("pipeline.") and (path.with_suffix(".py").exists() or path.is_dir())


def outside(path: Path) -> set[str]:
    """Third-party packages that a file imports."""
    top = {name.partition(".")[0] for name in imports(path)}
    beside = {p.stem for p in path.parent.glob("*.py")}
    return top - set(sys.stdlib_module_names) - {"pipeline"} - beside


def house(path: Path) -> set[str]:
    """Modules of the library that a file imports."""
    return {name for name in imports(path) if name.partition(".")[0] == "pipeline"}


@pytest.mark.parametrize("path", [p for p in LIBRARY if p.name != "__init__.py"], ids=relative)
def test_a_module_imports_only_from_below(path: Path) -> None:
    own = floor(module_name(path))
    allowed = BELOW[own]
    for name in house(path):
        if own == 3 and name == "pipeline.options":
            continue
        assert floor(name) in allowed, f"{relative(path)} on floor {own} imports {name}"
    assert outside(path) <= OUTSIDE[own]


PACKAGES = [p for p in LIBRARY if p.name == "__init__.py"]
FACES = {"pipeline/tables/__init__.py"}  # packages whose names are those of their modules


@pytest.mark.parametrize("path", [p for p in PACKAGES if relative(p) not in FACES], ids=relative)
def test_packages_import_nothing(path: Path) -> None:
    assert not imports(path)


def test_no_cycles() -> None:
    graph = {module_name(p): house(p) for p in LIBRARY}
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, f"a cycle: {' -> '.join((*way, module))}"
        if module not in done:
            for other in sorted(graph[module]):
                visit(other, (*way, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def test_only_cli_knows_typer() -> None:
    knows = {relative(p) for p in LIBRARY if {"typer", "click"} & outside(p)}
    assert knows == {"pipeline/cli.py"}


def test_the_library_does_not_need_espeak() -> None:
    """It is under the GPL, so only the programs that speak load it."""
    for path in [*LIBRARY, *BIN, *UTILS]:
        if path.parent.name != "synth":
            assert not {n for n in house(path) if n.startswith("pipeline.synth")}, relative(path)


def test_nothing_imports_a_program() -> None:
    programs = {p.stem for p in [*BIN, *UTILS]} | {"bin", "utils", "egs"}
    for path in [*LIBRARY, *PROGRAMS, *LOCAL]:
        top = {name.partition(".")[0] for name in imports(path)}
        assert not top & programs, relative(path)


@pytest.mark.parametrize("path", UTILS, ids=relative)
def test_utils_stand_on_the_lowest_floors(path: Path) -> None:
    for name in house(path):
        assert name == "pipeline.cli" or floor(name) <= 1, f"{relative(path)} imports {name}"
    assert outside(path) <= {"typer"}


@pytest.mark.parametrize("path", BIN, ids=relative)
def test_bin_imports_heavy_modules_only_when_it_runs(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name for node in top if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in top if isinstance(node, ast.ImportFrom) and node.module}
    for name in names:
        assert name.partition(".")[0] not in {"torch"} | FORMATS - {"numpy"}
        if name.startswith("pipeline.") and not name.endswith("options"):
            assert floor(name) in {0, 1, 5}, f"{relative(path)} imports {name} before it runs"


def loaded_by(statement: str) -> set[str]:
    """Top-level modules that a fresh interpreter has after a statement and had not before."""
    program = (
        "import json, sys\nbefore = set(sys.modules)\n"
        f"{statement}\n"
        "print(json.dumps(sorted({m.partition('.')[0] for m in set(sys.modules) - before})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    return set(json.loads(done.stdout))


def test_import_pipeline_imports_nothing() -> None:
    assert loaded_by("import pipeline") == {"pipeline"}


def test_tables_features_and_scores_load_without_torch_or_typer() -> None:
    modules = [name for name, number in FLOORS.items() if number <= 1]
    loaded = loaded_by("import " + ", ".join(modules))
    assert "pipeline" in loaded
    assert not loaded & {"torch", "typer", "click", "matplotlib"}


# ---- sizes ---------------------------------------------------------------------------------------


def test_files_stay_small() -> None:
    limits = [*((p, 400) for p in LIBRARY), *((p, 120) for p in BIN)]
    for path, limit in limits:
        lines = len(path.read_text(encoding="utf-8").splitlines())
        assert lines <= limit, f"{relative(path)}: {lines} lines, at most {limit}"


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines after the signature and the docstring."""
    first = function.body[1] if ast.get_docstring(function) and function.body[1:] else None
    start = (first or function.body[0]).lineno
    return (function.end_lineno or start) - start + 1


def test_functions_stay_small() -> None:
    for path in [*LIBRARY, *PROGRAMS]:
        for function in functions(path):
            lines = body_lines(function)
            assert lines <= 60, f"{relative(path)}: {function.name}: {lines} lines, at most 60"


def test_public_names_of_the_library_are_explained() -> None:
    for path in LIBRARY:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert ast.get_docstring(tree), f"{relative(path)}: no docstring"
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{relative(path)}: {node.name}: no docstring"


# ---- programs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PROGRAMS, ids=relative)
def test_a_program_can_be_run_and_explains_itself(path: Path) -> None:
    assert os.access(path, os.X_OK), f"chmod +x {relative(path)}"
    text = path.read_text(encoding="utf-8")
    assert text.startswith("#!/usr/bin/env python3\n")
    docstring = ast.get_docstring(ast.parse(text))
    assert docstring
    assert len(docstring.splitlines()[0]) <= 100
    for part in ("Usage: ", "e.g.: ", "See also: "):
        assert part in docstring, f"{relative(path)}: its docstring lacks {part!r}"
    usage = docstring[docstring.index("Usage: ") :].split()
    assert usage[1] == path.name
    assert re.search(rf"e\.g\.: (\S+/)?{re.escape(path.name)}", docstring)


def test_see_also_names_what_there_is() -> None:
    there = {p.name for folder in ("bin", "utils") for p in (ROOT / folder).iterdir()}
    there |= {p.name for p in (ROOT / "egs").glob("*/local/*")}
    for path in PROGRAMS:
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        named = set(re.findall(r"[\w*]+\.(?:py|sh)\b", docstring[docstring.index("See also: ") :]))
        assert named - {"run.sh"} <= there, f"{relative(path)}: {sorted(named - there)}"
        assert path.name not in named


@pytest.mark.parametrize("path", [*BIN, *UTILS, *LOCAL], ids=relative)
def test_no_program_shadows_a_module(path: Path) -> None:
    """The folder of a program is where its imports are looked up first."""
    assert path.stem not in sys.stdlib_module_names
    assert path.stem not in {*FORMATS, "torch", "typer", "click", "safetensors", "pipeline"}


def test_every_program_of_bin_is_installed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    setuptools = project["tool"]["setuptools"]
    assert setuptools["script-files"] == [relative(p) for p in BIN]
    assert setuptools["packages"]["find"]["include"] == ["pipeline*"]


def test_everything_that_is_imported_is_installed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = [*project["dependencies"]]
    for extra in project["optional-dependencies"].values():
        named += extra
    installed = {re.split(r"[^\w-]", line)[0].replace("-", "_") for line in named}
    for path in [*LIBRARY, *BIN, *UTILS, *LOCAL]:
        assert outside(path) <= installed, relative(path)


@pytest.mark.parametrize("path", PROGRAMS, ids=relative)
def test_a_program_without_its_packages_says_how_to_get_them(path: Path) -> None:
    """Its first import is the check, in a grammar that old versions of Python can read."""
    text = path.read_text(encoding="utf-8")
    statement = "import pipeline.environment  # isort: skip"
    assert statement in text[: text.index("import ") + len(statement)], relative(path)
    ast.parse(text, feature_version=(3, 7))
    ast.parse((ROOT / "pipeline/environment.py").read_text("utf-8"), feature_version=(3, 7))


@pytest.mark.parametrize("path", PROGRAMS, ids=relative)
def test_a_bare_python_gives_one_line(path: Path) -> None:
    if not outside(path):
        return
    done = subprocess.run(
        [sys.executable, "-S", str(path), "x", "y", "z"],  # -S: without installed packages
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"]},
        check=False,
    )
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"ERROR ({path.name}) this Python (")
    assert "lacks the package" in line
    assert "egs/timit && . ./path.sh" in line
    assert ".venv/bin/activate" in line
    assert done.returncode == 1


# ---- files ---------------------------------------------------------------------------------------


def tracked() -> list[Path]:
    done = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True
    )
    return [ROOT / name for name in done.stdout.split("\0") if name]


def test_no_file_names_a_place_on_one_machine() -> None:
    places = [re.compile(rf"(?<![\w.])/{name}/\w") for name in ("work", "tmp", "root", "home")]
    for path in tracked():
        if not path.is_file() or path == Path(__file__).resolve():
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        for place in places:
            match = place.search(text)
            assert match is None, f"{relative(path)}: {text[match.start() : match.start() + 40]!r}"


# ---- options files -------------------------------------------------------------------------------

OPTIONS_FILES = sorted((ROOT / "egs").glob("*/conf/**/*.conf"))
READERS = {
    r"fbank": "compute_fbank_feats.py",
    r"mfcc": "compute_mfcc_feats.py",
    r"spectrogram": "compute_spectrogram_feats.py",
    r"delta\w*": "add_deltas.py",
    r"train_ctc\w*": "train_ctc.py",
    r"train_predictor\w*": "train_predictor.py",
    r"train_transducer\w*": "train_transducer.py",
}


def reader(path: Path) -> str | None:
    found = [program for name, program in READERS.items() if re.fullmatch(name, path.stem)]
    return found[0] if found else None


@pytest.fixture(scope="module")
def commands() -> dict[str, object]:
    """Each program's command, caught where it would have run."""
    caught: list[object] = []
    run, pipeline.cli.run = pipeline.cli.run, caught.append
    try:
        for program in READERS.values():
            runpy.run_path(str(ROOT / "bin" / program), run_name="__main__")
    finally:
        pipeline.cli.run = run
    return {
        program: pipeline.cli._typer_command(main)
        for program, main in zip(READERS.values(), caught, strict=True)
    }


@pytest.mark.parametrize("path", [p for p in OPTIONS_FILES if reader(p)], ids=relative)
def test_an_options_file_is_read_by_its_command(path: Path, commands: dict[str, object]) -> None:
    command = commands[str(reader(path))]
    options = to_click(command, read_config_options(path, command))
    assert options
    needed = sum(p.param_type_name == "argument" and p.required for p in command.params)
    with command.make_context("command", [*options, *["x"] * needed]) as context:
        given = {
            option.partition("=")[0].removeprefix("--").replace("-", "_") for option in options
        }
        assert {re.sub("^no_", "", name) for name in given} <= set(context.params)


@pytest.mark.parametrize("path", [p for p in OPTIONS_FILES if not reader(p)], ids=relative)
def test_other_options_files_are_a_recipes(path: Path) -> None:
    """Lines name=value of variables that run.sh declares."""
    recipe = (path.parents[1] / "run.sh").read_text(encoding="utf-8")
    declared = recipe[: recipe.index("parse_options.sh")]
    for line in path.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            assert re.search(rf"^{line.partition('=')[0]}=", declared, re.MULTILINE), line


@pytest.mark.parametrize("folder", ["bin", "utils", "egs/timit/local", "egs/speechocean762/local"])
def test_programs_find_the_library_beside_them(folder: str) -> None:
    """`python bin/x.py` works in a clone that is not installed: a link leads to the library."""
    assert (ROOT / folder / "pipeline").resolve() == ROOT / "pipeline"
