#!/usr/bin/env bash
# tune_fusion.sh: choose the weight of a language model and the insertion bonus on a dev set.
#
# Usage: tune_fusion.sh [options] PROGRAM MODEL_DIR LM DEV_DIR TUNE_DIR
#
# e.g.: tune_fusion.sh --options "--beam=100" decode_ctc.py exp/ctc exp/lm/3gram.arpa data/dev \
#         exp/ctc/tune_dev
#
#       tune_fusion.sh --words true --weights "0.3 0.6 1" --bonuses "0 1 2" decode_ctc.py exp/ctc \
#         exp/lm/3gram.arpa data/dev exp/ctc/tune_dev
#
# Decodes DEV_DIR with every pair of --weights and --bonuses, and without a language model. Writes
# TUNE_DIR/tune.tsv with a line for each pair: weight, bonus, error rate and its counts. Writes
# TUNE_DIR/best.conf with the options of the lowest error rate, the first of equal ones; PROGRAM
# reads it by --config to decode other sets. Never choose on a test set. With --words true the model
# is over words: LM is --word-lm, weights are α and bonuses β of Deep Speech 2's search.
set -euo pipefail

weights="0.1 0.2 0.3 0.5"
bonuses="0 0.5 1"
words=false  # true: the language model is over words
nj=2         # number of jobs; at most one for each utterance
cmd=run.py   # program that runs them
options=     # options of PROGRAM
map=         # phone map, see score.py
name=        # name of the error rate, see score.py
score_options= # more options of score.py, e.g. --cer
. "$(dirname "$0")/parse_options.sh"
. "$(dirname "$0")/job_words.sh"
. "$(dirname "$0")/files.sh"

if [ $# -ne 5 ]; then
  sed -n '2,/^set/p' "$0" | grep '^#' >&2
  exit 2
fi
program=$1 model=$2 lm=$3 data=$4 tune=$5
usable_paths model lm data tune
if [[ $lm == *[\$\`\"\\#]* ]]; then
  echo "ERROR ($(basename "$0")) '$lm': has one of \$ \` \" \\ #, which options cannot hold; rename it" >&2
  exit 2
fi
of_words=$words
split_options "$score_options"
score=("${words[@]}")
columns=metric,error_rate,errors,ref_tokens,ins,del,sub
fewest= best=
lock_folder "$tune"
new=$(temporary "$tune/tune.tsv")
{
  printf 'weight\tbonus\t%s\n' "${columns//,/$'\t'}"
  for weight in 0 $weights; do
    for bonus in $bonuses; do
      dir=$tune/weight${weight}_bonus$bonus
      fusion=(--insertion-bonus="$bonus")
      if [ "$weight" != 0 ]; then fusion+=(--lm="$lm" --lm-weight="$weight"); fi
      if [ "$of_words" = true ]; then
        fusion=(--word-lm="$lm" --lm-weight="$weight" --word-bonus="$bonus")
      fi
      given=$(for word in "${fusion[@]}"; do option_word "$word"; printf ' '; done)
      once.py --input "$model/final.safetensors" --input "$data/feats.scp" --input "$lm" \
        --output "$dir/hyp.txt" "$dir/.decoded" \
        decode.sh --nj "$nj" --cmd "$cmd" --options "$options ${given% }" "$program" \
        "$model" "$data" "$dir" >&2
      score.py --name "$name" --map "$map" --sclite=false "${score[@]}" "$data" "$dir" >&2
      scores=$(print_scores.py --columns "$columns" "$dir")
      printf '%s\t%s\t%s\n' "$weight" "$bonus" "$scores"
      IFS=$'\t' read -r _ _ errors _ <<< "$scores"
      if [ -z "$fewest" ] || [ "$errors" -lt "$fewest" ]; then
        fewest=$errors best=$(printf '%s\n' "${fusion[@]}")
      fi
    done
  done
} > "$new"
publish "$new" "$tune/tune.tsv"
new=$(temporary "$tune/best.conf")
printf '%s\n' "$best" > "$new"
publish "$new" "$tune/best.conf"
cat "$tune/tune.tsv" "$tune/best.conf"
