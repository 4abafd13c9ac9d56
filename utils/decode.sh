#!/usr/bin/env bash
# decode.sh: decode a data directory with a model, in parallel jobs.
#
# Usage: decode.sh [options] PROGRAM MODEL_DIR DATA_DIR DECODE_DIR
#
# e.g.: decode.sh --nj 4 --options "--beam=100" decode_transducer.py exp/transducer data/test \
#         exp/transducer/decode_test
#
# Writes DECODE_DIR/hyp.txt, hyp.ctm and nbest in the order of DATA_DIR/feats.scp; they are the same
# for any number of jobs. speed.jsonl has the frames and the seconds of each job. A job leaves
# log/.done.JOB with a digest of its command and inputs, so that a second run decodes only the
# utterances that are missing. An utterance that cannot be decoded fails its job after the others of
# that job are done; --skip-bad true leaves such utterances out.
set -euo pipefail

nj=2         # number of jobs; at most one for each utterance
cmd=run.py   # program that runs them
options=     # options of PROGRAM
skip_bad=false
. "$(dirname "$0")/parse_options.sh"
. "$(dirname "$0")/files.sh"

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
cmvn=()  # statistics of the speakers, for models that normalise by them
if [ -s "$data/cmvn.scp" ]; then
  cmvn=(--cmvn="scp:$data/cmvn.scp" --utt2spk="ark:$data/utt2spk")
fi
lock_folder "$dir"
mkdir -p "$dir/log"
rm -f "$dir/.done"
discard "$dir/scoring" # the score of the hypotheses that were there
split_data.py --per-utt "$data" "$nj"
feats=$data/split${nj}utt/JOB/feats.scp
inputs=$model/final.safetensors,$model/config.json
if [ ${#cmvn[@]} -gt 0 ]; then inputs+=,scp:$data/cmvn.scp; fi
permissive=
if [ "$skip_bad" = true ]; then permissive=,p; fi
# shellcheck disable=SC2086  # $cmd and $options are several words
$cmd JOB=1:"$nj" "$dir/log/decode.JOB.log" \
  once.py --inputs="scp:$feats" --inputs="$inputs" \
  --outputs="$dir/log/hyp.JOB,$dir/log/ctm.JOB,$dir/log/nbest.JOB,$dir/log/speed.JOB" \
  "$dir/log/.done.JOB" \
  "$program" $options "${cmvn[@]}" --resume --write-nbest="ark,t:$dir/log/nbest.JOB" \
  --write-ctm="$dir/log/ctm.JOB" --write-speed="$dir/log/speed.JOB" \
  "$model" "scp$permissive:$feats" "ark,t:$dir/log/hyp.JOB"
files=(speed.jsonl nbest hyp.ctm hyp.txt) joined=()
for file in "${files[@]}"; do
  what=${file#hyp.}
  if [ "$file" = hyp.txt ]; then what=hyp; fi
  new=$(temporary "$dir/$file")
  for job in $(seq "$nj"); do cat "$dir/log/${what%.jsonl}.$job"; done > "$new"
  joined+=("$new")
done
rm -f "$dir/.hyp.ctm.sha256"
for n in "${!files[@]}"; do publish "${joined[n]}" "$dir/${files[n]}"; done
seal "$dir/hyp.ctm"
rm -f "$dir"/log/*.partial  # from which --resume would continue
touch "$dir/.done"
