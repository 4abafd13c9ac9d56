"""Imported before all else by every program: says how to get a Python with the packages.

This file and the programs are written in the grammar of old versions of Python 3, so that these can
read them as far as the check below.
"""

import os
import sys

OLDEST = (3, 11)

_ROOT = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))


def remedy() -> str:
    """How to get a Python with the packages: the end of a message."""
    recipe = os.path.join(_ROOT, "egs", "timit")
    if not os.path.exists(os.path.join(recipe, "path.sh")):
        return "install them with pip install . in the folder of the project"
    active = os.path.join(_ROOT, ".venv", "bin", "activate")
    return f"in bash: cd {recipe} && . ./path.sh (it installs what is missing), or . {active}"


def lacks(error: ImportError) -> str:
    """The message about a package that this Python lacks or cannot load."""
    name = (error.name or "").partition(".")[0]
    what = f"lacks the package {name}" if isinstance(error, ModuleNotFoundError) else str(error)
    return f"{_this_python()}: {what}; {remedy()}"


def _this_python() -> str:
    version = ".".join(map(str, sys.version_info[:3]))
    return f"this Python ({sys.executable or 'python3'}, {version})"


def _report(message: str) -> None:
    program = os.path.basename(sys.argv[0]) if sys.argv else "python"
    sys.stderr.write(f"ERROR ({program}) {message}\n")


def _explain(kind, error, trace):  # type: ignore[no-untyped-def]
    """In place of a traceback, say which package is missing."""
    own = isinstance(error, ImportError) and (error.name or "pipeline").startswith("pipeline")
    if isinstance(error, ImportError) and not own:
        _report(lacks(error))
    else:
        sys.__excepthook__(kind, error, trace)


if sys.version_info < OLDEST:
    _report(f"{_this_python()} is older than {OLDEST[0]}.{OLDEST[1]}; {remedy()}")
    sys.exit(1)
sys.excepthook = _explain
if any(word.startswith(("--async", "--config")) for word in sys.argv):
    # Processes of an asynchronous training just end, and torch warns about each.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
