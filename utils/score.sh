#!/usr/bin/env bash
# score.sh: score decode directories, one job for each.
#
# Usage: score.sh [options] DATA_DIR DECODE_DIR [DATA_DIR DECODE_DIR ...]
#
# e.g.: score.sh --cmd slurm.py --options "--name=PER --map=conf/phones.60-48-39.map" \
#         data/dev exp/ctc/decode_dev data/test exp/ctc/decode_test
#
# Each DECODE_DIR gets what score.py writes. The error rates of all of them are printed at the end.
set -euo pipefail

cmd=run.py    # program that runs the jobs
options=      # options of score.py
log=          # folder of the logs; default: log in the first DECODE_DIR
. "$(dirname "$0")/parse_options.sh"
. "$(dirname "$0")/files.sh"

if [ $# -lt 2 ] || [ $(($# % 2)) -ne 0 ]; then
  sed -n '2,/^set/p' "$0" | grep '^#' >&2
  exit 2
fi
log=${log:-$2/log}
lock_folder "$log"
new=$(temporary "$log/score.list")
printf '"%s" "%s"\n' "$@" > "$new" # as xargs reads them
publish "$new" "$log/score.list"
# shellcheck disable=SC2086  # $cmd and $options are several words
$cmd JOB=1:$(($# / 2)) "$log/score.JOB.log" \
  sed -n JOBp "$log/score.list" '|' xargs score.py $options
decode_dirs=()
while [ $# -gt 0 ]; do
  decode_dirs+=("$2")
  shift 2
done
print_scores.py "${decode_dirs[@]}"
