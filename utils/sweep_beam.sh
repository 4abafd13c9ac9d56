#!/usr/bin/env bash
# sweep_beam.sh: error rate and time of a search against the width of its beam.
#
# Usage: sweep_beam.sh [options] PROGRAM MODEL_DIR DATA_DIR SWEEP_DIR
#
# e.g.: sweep_beam.sh decode_transducer.py exp/transducer data/dev exp/transducer/sweep_dev
#       plot_sweep.py exp/transducer/sweep_dev/sweep.tsv sweep.png
#
# Writes SWEEP_DIR/sweep.tsv: a line a width with the error rate in percent, errors, reference
# tokens, insertions, deletions, substitutions, frames and seconds, those of all jobs together and
# of encoding too. A width is decoded again only where model, data or options have changed.
set -euo pipefail

widths="1 4 10 30 100 300 1000 4000"
nj=2         # jobs; at most one an utterance
cmd=run.py   # what runs them
options=     # of PROGRAM
map=         # as score.py
. "$(dirname "$0")/parse_options.sh"

if [ $# -ne 4 ]; then
  sed -n '2,/^set/p' "$0" | grep '^#' >&2
  exit 2
fi
program=$1 model=$2 data=$3 sweep=$4
mkdir -p "$sweep"
{
  printf 'beam\tper\terrors\ttokens\tins\tdel\tsub\tframes\tseconds\n'
  for width in $widths; do
    dir=$sweep/beam$width
    rm -f "$dir"/log/*.partial  # what is taken over takes no time
    once.py --inputs "$model/final.safetensors,$data/feats.scp" --outputs "$dir/hyp.txt" \
      "$dir/.decoded" decode.sh --nj "$nj" --cmd "$cmd" --options "$options --beam=$width" \
      "$program" "$model" "$data" "$dir" >&2
    score.py --map "$map" --sclite=false "$data" "$dir" >&2
    cat "$dir"/log/decode.*.log "$dir/scoring/wer" | awk -v width="$width" '
      match($0, /, [0-9]+ frames in [0-9.]+ s/) { split(substr($0, RSTART + 2), f, " "); frames += f[1]; seconds += f[4] }
      /^%WER/ { gsub(",", ""); line = width "\t" $2 "\t" $4 "\t" $6 "\t" $7 "\t" $9 "\t" $11 }
      END { printf "%s\t%d\t%.1f\n", line, frames, seconds }'
  done
} > "$sweep/.sweep.tmp"
mv "$sweep/.sweep.tmp" "$sweep/sweep.tsv"
cat "$sweep/sweep.tsv"
