# Sourced by a recipe after parse_options.sh, with the recipe's folder in $HERE. It checks the
# options, goes to that folder, puts the programs on PATH, sets $cmd, $train_cmd and $train_launch
# as cmd.sh says, and defines how the recipe runs its commands:
#
#   step NAME INPUTS OUTPUTS COMMAND …      runs COMMAND here
#   heavy NAME INPUTS OUTPUTS COMMAND …     runs it as one job of $cmd
#   training NAME INPUTS OUTPUTS COMMAND …  runs it as one job of $train_cmd, with $train_launch
#
# All three skip a COMMAND that was run before if it, its inputs and its outputs have not changed;
# $exp/.done/NAME records that. INPUTS and OUTPUTS are paths between commas. The log of a job is
# $exp/log/NAME.log, and is also shown while it grows.

step() { once.py --inputs "$2" --outputs "$3" "$exp/.done/$1" "${@:4}"; }
heavy() { _job "$cmd" "" "$@"; }
training() { _job "$train_cmd" "$train_launch" "$@"; }

_job() {
  local log=$exp/log/$3.log words quoted
  mkdir -p "$exp/log"
  quoted="'${log//\'/\'\\\'\'}'" # as once.py splits it
  job_words "${@:6}"
  SHOW_OUTPUT=true once.py --inputs "$4" --outputs "$5" --via "$1 $quoted $2" \
    "$exp/.done/$3" "${words[@]}"
}

# runs N: whether stage N is to run. begin N TEXT: say that it starts.
runs() { [ "$stage" -le "$1" ] && [ "$stop_stage" -ge "$1" ]; }
begin() { echo "LOG ($(basename "$0")) stage $1: $2" >&2; }

. "$(dirname "${BASH_SOURCE[0]}")/job_words.sh"

# ---- the options ---------------------------------------------------------------------------------

_usage_error() {
  echo "ERROR ($(basename "$0")) $1" >&2
  exit 2
}

# A path as the user meant it: from where the recipe was called, or else from the recipe's folder.
_as_meant() {
  if [ -z "$1" ] || [ "${1#/}" != "$1" ] || { [ ! -e "$PWD/$1" ] && [ -e "$HERE/$1" ]; }; then
    echo "$1"
  else
    echo "$PWD/$1"
  fi
}

if [ $# -ne 0 ]; then _usage_error "unexpected '$1'; options only, see --help"; fi
for _name in stage stop_stage nj; do
  if ! [[ ${!_name} =~ ^[0-9]+$ ]]; then
    _usage_error "--${_name//_/-} takes a whole number, not '${!_name}'"
  fi
done
if [ "$nj" -eq 0 ]; then _usage_error "--nj must be 1 or more"; fi
if [ "$stage" -gt "$stop_stage" ]; then
  _usage_error "--stage $stage is after --stop-stage $stop_stage: nothing to do"
fi
for _name in corpus ${eval_corpus+eval_corpus} model regime; do printf -v "$_name" %s "$(_as_meant "${!_name}")"; done
if [ -n "$work" ] && [ "$work" != . ] && [ "${work#/}" = "$work" ]; then work=$PWD/$work; fi
for _name in work model regime; do
  if [[ ${!_name} == *,* ]]; then
    _usage_error "--$_name: '${!_name}' has a comma, which stands between files here; rename it"
  fi
  usable_paths "$_name"
done
if [ -n "$corpus" ] && [ ! -d "$corpus" ]; then
  echo "ERROR ($(basename "$0")) --corpus: no folder $corpus; give where the corpus is" >&2
  exit 1
fi
cd "$HERE"
if [ -n "$model" ] && [ ! -f "$model" ]; then _usage_error "--model: no file $model"; fi
if [ -n "$regime" ] && [ ! -d "$regime" ]; then _usage_error "--regime: no folder $regime"; fi

# ---- the environment -----------------------------------------------------------------------------

# A file that the shell reads must not hold what some editors add.
_plain() {
  if LC_ALL=C grep -q $'\r\\|^\xEF\xBB\xBF' "$1"; then
    _usage_error "$1: has carriage returns or a byte order mark; take them off with sed -i -e 's/\\r\$//' -e '1s/^\\xEF\\xBB\\xBF//' $1"
  fi
}
_plain ./path.sh
_plain ./cmd.sh
. ./path.sh
. ./cmd.sh
train_cmd=${train_cmd:-$cmd} train_launch=${train_launch:-}
