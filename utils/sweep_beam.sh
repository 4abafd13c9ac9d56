#!/usr/bin/env bash
# sweep_beam.sh: measure the error rate and the time of a search for several beams.
#
# Usage: sweep_beam.sh [options] PROGRAM MODEL_DIR DATA_DIR SWEEP_DIR
#
# e.g.: sweep_beam.sh decode_transducer.py exp/transducer data/dev exp/transducer/sweep_dev
#       plot_sweep.py exp/transducer/sweep_dev/sweep.tsv sweep.png
#
# Writes SWEEP_DIR/sweep.tsv with a line for each beam: the error rate, its counts, the frames that
# were decoded, and the seconds that all jobs together took for encoding and search. A beam is
# decoded again only where the model, the data or the options have changed.
set -euo pipefail

beams="1 4 10 30 100 300 1000 4000"
nj=2         # number of jobs; at most one for each utterance
cmd=run.py   # program that runs them
options=     # options of PROGRAM
map=         # phone map, see score.py
name=        # name of the error rate, see score.py
. "$(dirname "$0")/parse_options.sh"
. "$(dirname "$0")/job_words.sh"
. "$(dirname "$0")/files.sh"

if [ $# -ne 4 ]; then
  sed -n '2,/^set/p' "$0" | grep '^#' >&2
  exit 2
fi
program=$1 model=$2 data=$3 sweep=$4
usable_paths model data sweep
columns=metric,error_rate,errors,ref_tokens,ins,del,sub,frames,seconds
lock_folder "$sweep"
new=$(temporary "$sweep/sweep.tsv")
{
  printf 'beam\t%s\n' "${columns//,/$'\t'}"
  for beam in $beams; do
    dir=$sweep/beam$beam
    rm -f "$dir"/log/*.partial # an utterance that an earlier run has decoded would take no time
    once.py --input "$model/final.safetensors" --input "$data/feats.scp" \
      --output "$dir/hyp.txt" --output "$dir/speed.jsonl" "$dir/.decoded" \
      decode.sh --nj "$nj" --cmd "$cmd" --options "$options --beam=$beam" \
      "$program" "$model" "$data" "$dir" >&2
    score.py --name "$name" --map "$map" --sclite=false "$data" "$dir" >&2
    scores=$(print_scores.py --columns "$columns" "$dir")
    printf '%s\t%s\n' "$beam" "$scores"
  done
} > "$new"
publish "$new" "$sweep/sweep.tsv"
cat "$sweep/sweep.tsv"
