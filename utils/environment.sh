# Sourced by recipes. It puts a Python with the pinned dependencies, bin/ and utils/ on PATH.
#
#   REQUIREMENTS=requirements-dev.txt . utils/environment.sh   (default: requirements.txt)
#
# An active environment that has all dependencies is used as it is. Otherwise the first call makes
# .venv in the root of the project, and later calls use that.

_root=$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
_requirements=$_root/${REQUIREMENTS:-requirements.txt}

# True if the Python "$1" is 3.11 or newer and has every pinned package, in any newer version.
_suitable() {
  "$1" - "$_requirements" 2>/dev/null <<'PYTHON'
import re, sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

MINIMUM = {"torch": (2, 9)}  # another build of torch, e.g. for a GPU, is welcome

def numbers(text):
    return tuple(int(n) for n in re.findall(r"\d+", text.partition("+")[0])[:3])

def check(path):
    for line in path.read_text().splitlines():
        if line.startswith("-r "):
            check(path.parent / line[3:].strip())
        elif "==" in line and not line.startswith("#"):
            name, wanted = line.strip().split("==")
            if numbers(version(name)) < MINIMUM.get(name, numbers(wanted)):
                sys.exit(1)

if sys.version_info < (3, 11):
    sys.exit(1)
try:
    check(Path(sys.argv[1]))
except PackageNotFoundError:
    sys.exit(1)
PYTHON
}

_find_python() {
  local name
  for name in python3 python3.13 python3.12 python3.11; do
    if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$name"
      return 0
    fi
  done
  echo "ERROR ($0) no Python 3.11 or newer found; install one (Debian: apt install python3 python3-venv)" >&2
  return 1
}

_make_venv() {
  local venv=$_root/.venv python
  if [ ! -x "$venv/bin/python3" ] || ! "$venv/bin/python3" -m pip --version >/dev/null 2>&1; then
    python=$(_find_python) || return 1
    echo "LOG ($0) making $venv with $python" >&2
    if ! "$python" -m venv --clear "$venv" >&2; then
      echo "ERROR ($0) cannot make a virtual environment; on Debian: apt install python3-venv" >&2
      return 1
    fi
  fi
  echo "LOG ($0) installing $(basename "$_requirements") into $venv (once; some minutes)" >&2
  if ! "$venv/bin/python3" -m pip install --quiet --disable-pip-version-check \
      -r "$_requirements" >&2; then
    echo "ERROR ($0) installing failed; see above, then run this again" >&2
    return 1
  fi
}

if ! _suitable python3; then
  if [ ! -x "$_root/.venv/bin/python3" ] || ! _suitable "$_root/.venv/bin/python3"; then
    _make_venv || exit 1
  fi
  export VIRTUAL_ENV=$_root/.venv
  PATH=$VIRTUAL_ENV/bin:$PATH
fi
export PATH=$_root/bin:$_root/utils:$PATH
export PYTHONPATH=$_root${PYTHONPATH:+:$PYTHONPATH}
export PYTHONUNBUFFERED=1
export LC_ALL=C # the byte order in which tables are sorted
unset _root _requirements
unset -f _suitable _find_python _make_venv
