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
. "$(dirname "$0")/job_words.sh"
. "$(dirname "$0")/files.sh"

if [ $# -lt 2 ] || [ $(($# % 2)) -ne 0 ]; then
  sed -n '2,/^set/p' "$0" | grep '^#' >&2
  exit 2
fi
paths=("$@")
for ((i = 0; i < $#; i++)); do usable_paths "paths[$i]"; done
log=${log:-${paths[1]}/log}
usable_paths log
choose_job_name "$log"
lock_folder "$log"
# A line for each job, as xargs reads it: what is no letter of a plain name stands after a \.
new=$(temporary "$log/score.list")
printf '%s\n' "${paths[@]}" | LC_ALL=C sed 's/[^A-Za-z0-9_./-]/\\&/g' | paste -d ' ' - - > "$new"
publish "$new" "$log/score.list"
job_words "$log/score.list"
list=("${words[@]}")
split_options "$options"
# shellcheck disable=SC2086  # $cmd may be a program and its options
$cmd "$job=1:$(($# / 2))" "$log/score.$job.log" \
  sed -n "${job}p" "${list[@]}" '|' xargs score.py "${words[@]}"
decode_dirs=()
for ((i = 1; i < $#; i += 2)); do decode_dirs+=("${paths[i]}"); done
print_scores.py "${decode_dirs[@]}"
