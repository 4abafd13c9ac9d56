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
. "$(dirname "$0")/job_words.sh"
. "$(dirname "$0")/files.sh"

if [ $# -ne 4 ]; then
  sed -n '2,/^set/p' "$0" | grep '^#' >&2
  exit 2
fi
program=$1 model=$2 data=$3 dir=$4
usable_paths model data dir
choose_job_name "$model" "$data" "$dir"
if [ ! -s "$data/feats.scp" ]; then
  echo "ERROR ($(basename "$0")) $data/feats.scp: missing or empty; make it with make_feats.sh" >&2
  exit 1
fi
utterances=$(tr '\r' '\n' < "$data/feats.scp" | grep -c .)
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
feats=$data/split${nj}utt/$job/feats.scp log=$dir/log
inputs=(--input="scp:$feats" --input="$model/final.safetensors" --input="$model/config.json")
if [ ${#cmvn[@]} -gt 0 ]; then inputs+=(--input="scp:$data/cmvn.scp"); fi
permissive= skip=()
if [ "$skip_bad" = true ]; then permissive=,p skip=(--allow-empty=true); fi
job_words once.py "${inputs[@]}" --output="$log/hyp.$job" --output="$log/ctm.$job" \
  --output="$log/nbest.$job" --output="$log/speed.$job" "$log/.done.$job"
step=("${words[@]}")
job_words "${cmvn[@]}" "${skip[@]}" --resume --write-nbest="ark,t:$log/nbest.$job" \
  --write-ctm="$log/ctm.$job" --write-speed="$log/speed.$job" \
  "$model" "scp$permissive:$feats" "ark,t:$log/hyp.$job"
tables=("${words[@]}")
split_options "$options"
# shellcheck disable=SC2086  # $cmd may be a program and its options
$cmd "$job=1:$nj" "$log/decode.$job.log" "${step[@]}" "$program" "${words[@]}" "${tables[@]}"
files=(speed.jsonl nbest hyp.ctm hyp.txt) joined=()
for file in "${files[@]}"; do
  what=${file#hyp.}
  if [ "$file" = hyp.txt ]; then what=hyp; fi
  new=$(temporary "$dir/$file")
  for n in $(seq "$nj"); do cat "$log/${what%.jsonl}.$n"; done > "$new"
  joined+=("$new")
done
if [ ! -s "${joined[3]}" ]; then
  rm -f "${joined[@]}"
  echo "ERROR ($(basename "$0")) $data: none of its utterances could be decoded; see $log/decode.*.log" >&2
  exit 1
fi
rm -f "$dir/.hyp.ctm.sha256"
for n in "${!files[@]}"; do publish "${joined[n]}" "$dir/${files[n]}"; done
seal "$dir/hyp.ctm"
rm -f "$dir"/log/*.partial  # from which --resume would continue
touch "$dir/.done"
