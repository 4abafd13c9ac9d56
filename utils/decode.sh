#!/usr/bin/env bash
# decode.sh: decode a data directory with a model, in parallel jobs.
#
# Usage: decode.sh [options] PROGRAM MODEL_DIR DATA_DIR DECODE_DIR
#
# e.g.: decode.sh --nj 4 --options "--beam=100" decode_transducer.py exp/transducer data/test \
#         exp/transducer/decode_test
#
# Writes DECODE_DIR/hyp.txt, hyp.ctm and nbest in the order of DATA_DIR/feats.scp, the same whatever
# the number of jobs. Each job leaves log/.done.JOB with a digest of its command and inputs; run
# again, only what is missing is decoded, utterance by utterance. An utterance that cannot be decoded
# fails its job, after all others of it; --skip-bad true leaves such utterances out.
set -euo pipefail

nj=2         # jobs; at most one an utterance
cmd=run.py   # what runs them
options=     # of PROGRAM
skip_bad=false
. "$(dirname "$0")/parse_options.sh"

if [ $# -ne 4 ]; then
  sed -n '2,/^set/p' "$0" | grep '^#' >&2
  exit 2
fi
program=$1 model=$2 data=$3 dir=$4
if [ ! -s "$data/feats.scp" ]; then
  echo "ERROR ($(basename "$0")) $data/feats.scp: missing or empty; make it with make_feats.sh" >&2
  exit 1
fi
utterances=$(wc -l < "$data/feats.scp")
if [ "$nj" -gt "$utterances" ]; then nj=$utterances; fi
cmvn=()  # for models that normalise by speaker
if [ -s "$data/cmvn.scp" ]; then
  cmvn=(--cmvn="scp:$data/cmvn.scp" --utt2spk="ark:$data/utt2spk")
fi
mkdir -p "$dir/log"
rm -f "$dir/.done"
rm -rf "$dir/scoring" # of the hypotheses that were there
split_data.py --per-utt "$data" "$nj"
feats=$data/split${nj}utt/JOB/feats.scp
inputs=$model/final.safetensors,$model/config.json
if [ ${#cmvn[@]} -gt 0 ]; then inputs+=,scp:$data/cmvn.scp; fi
permissive=
if [ "$skip_bad" = true ]; then permissive=,p; fi
# shellcheck disable=SC2086  # $cmd and $options are several words
$cmd JOB=1:"$nj" "$dir/log/decode.JOB.log" \
  once.py --inputs="scp:$feats" --inputs="$inputs" \
  --outputs="$dir/log/hyp.JOB,$dir/log/ctm.JOB,$dir/log/nbest.JOB" "$dir/log/.done.JOB" \
  "$program" $options "${cmvn[@]}" --resume --write-nbest="ark,t:$dir/log/nbest.JOB" \
  --write-ctm="$dir/log/ctm.JOB" "$model" "scp$permissive:$feats" "ark,t:$dir/log/hyp.JOB"
for what in nbest ctm hyp; do
  for job in $(seq "$nj"); do cat "$dir/log/$what.$job"; done > "$dir/.$what.tmp"
done
mv "$dir/.nbest.tmp" "$dir/nbest"
mv "$dir/.ctm.tmp" "$dir/hyp.ctm"
mv "$dir/.hyp.tmp" "$dir/hyp.txt"
rm -f "$dir"/log/*.partial  # what --resume would go on from
touch "$dir/.done"
