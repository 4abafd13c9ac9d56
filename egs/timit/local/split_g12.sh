#!/usr/bin/env bash
# split_g12.sh: make the data directories of [G12] section 3.1, which have 39 phones, and a
# validation set that is held out of the training set at random.
#
# Usage: split_g12.sh [--held-out N] --map MAP DATA_DIR OUT_DIR
#
# e.g.: local/split_g12.sh --held-out 184 --map conf/phones.60-48-39.map data data/g12
set -euo pipefail

held_out=184
map=
. "$(dirname "$0")/../../../utils/parse_options.sh"
. "$(dirname "$0")/../../../utils/job_words.sh"
if [ $# -ne 2 ] || [ -z "$map" ]; then
  sed -n '2,/^set/p' "$0" | grep '^#' >&2
  exit 2
fi
from=$1 to=$2
usable_paths from to map
all=$(wc -l < "$from/train/text")
if [ "$held_out" -ge "$all" ]; then
  echo "ERROR (split_g12.sh) cannot hold out $held_out of $all utterances; lower --held-out" >&2
  exit 1
fi
subset_data_dir.py "$from/train" "$held_out" "$to/held_out"
awk 'NR == FNR { held[$1]; next } !($1 in held) { print $1 }' \
  "$to/held_out/text" "$from/train/text" > "$to/.train_utts"
subset_data_dir.py --utt-list="$to/.train_utts" "$from/train" "$to/train"
rm -rf "$to/test"
cp -r "$from/test" "$to/test"
for set in train held_out test; do
  rm -f "$to/$set"/{feats.scp,cmvn.scp,cmvn.ark,utt2num_frames,phones.ctm}
  rm -rf "$to/$set/conf" "$to/$set"/split*
  map_phones.py --verbose=-1 "$map" "ark:$to/$set/text" "ark,t:$to/$set/.text"
  mv "$to/$set/.text" "$to/$set/text"
done
