#!/usr/bin/env bash
# Make the features of the GPU script's trainings: tests/gpu/features.sh FOLDER
#
# Those of the small demo corpus, compressed, as data directories train/ and dev/ with tokens.txt.
set -euo pipefail
if [ $# -ne 1 ]; then
  echo "Usage: $0 FOLDER" >&2
  exit 2
fi
mkdir -p "$1"
folder=$(cd "$1" && pwd)
cd "$(dirname "$0")/../.."
. utils/environment.sh
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
./egs/timit/run.sh --config egs/timit/conf/smoke.conf --work "$work" --stop-stage 3
for set in train dev; do
  mkdir -p "$folder/$set"
  cp -r "$work/data/$set"/{conf,text,utt2spk,spk2utt,utt2num_frames,frame_shift} "$folder/$set"
  # Named in feats.scp as seen from the folder, wherever that is taken.
  (cd "$folder" && copy_feats.py --compress=true "scp:$work/data/$set/feats.scp" \
    "ark,scp:$set/feats.ark,$set/feats.scp")
done
cp "$work/data/train/cmvn.ark" "$folder/train"
cp "$work/data/tokens.txt" "$folder"
