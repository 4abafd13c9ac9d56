#!/usr/bin/env bash
# score.sh: fold both sides to 39 phones, if a map is given, and score a decode directory.
#
# Usage: score.sh [--map MAP] DATA_DIR DECODE_DIR
#
# e.g.: score.sh --map conf/phones.60-48-39.map data/test exp/ctc/decode_test
#
# Writes DECODE_DIR/scoring/{ref.txt,hyp.txt,alignments,wer}. Folding is after search and before
# alignment, references too; silence is scored and repeats are kept, as Kaldi does.
set -euo pipefail

map=
. "$(dirname "$0")/parse_options.sh"

if [ $# -ne 2 ]; then
  sed -n '2,/^set/p' "$0" | grep '^#' >&2
  exit 2
fi
data=$1 dir=$2
for file in "$data/text" "$dir/hyp.txt"; do
  if [ ! -f "$file" ]; then
    echo "ERROR ($(basename "$0")) $file: missing; decode first" >&2
    exit 1
  fi
done
mkdir -p "$dir/scoring"
rm -f "$dir/scoring/wer"
if [ -n "$map" ]; then
  map_phones.py --verbose=-1 "$map" "ark:$data/text" "ark,t:$dir/scoring/ref.txt"
  map_phones.py --verbose=-1 "$map" "ark:$dir/hyp.txt" "ark,t:$dir/scoring/hyp.txt"
else
  for pair in "$data/text ref.txt" "$dir/hyp.txt hyp.txt"; do
    cp "${pair% *}" "$dir/scoring/.${pair##* }.tmp"
    mv "$dir/scoring/.${pair##* }.tmp" "$dir/scoring/${pair##* }"
  done
fi
align_text.py --verbose=-1 "ark:$dir/scoring/ref.txt" "ark:$dir/scoring/hyp.txt" \
  "ark,t:$dir/scoring/alignments"
compute_wer.py --text --mode=strict "ark:$dir/scoring/ref.txt" "ark:$dir/scoring/hyp.txt" \
  > "$dir/scoring/.wer.tmp"
mv "$dir/scoring/.wer.tmp" "$dir/scoring/wer"
echo "LOG ($(basename "$0")) $dir: $(head -n 1 "$dir/scoring/wer")" >&2
