#!/usr/bin/env bash
# tune_fusion.sh: choose the weight of a language model and the insertion bonus on a dev set.
#
# Usage: tune_fusion.sh [options] PROGRAM MODEL_DIR LM DEV_DIR TUNE_DIR
#
# e.g.: tune_fusion.sh --options "--beam=100" decode_ctc.py exp/ctc exp/lm/3gram.arpa data/dev \
#         exp/ctc/tune_dev
#
# Decodes DEV_DIR with every pair of --weights and --bonuses, and without a language model, and
# writes TUNE_DIR/tune.tsv (weight, bonus, error rate, counts) and TUNE_DIR/best.conf, the options
# of the lowest error rate, of equal ones the first: give it to PROGRAM as --config. The same LM is
# to be used on other sets; never choose on a test set.
set -euo pipefail

weights="0.1 0.2 0.3 0.5"
bonuses="0 0.5 1"
nj=2         # jobs; at most one an utterance
cmd=run.py   # what runs them
options=     # of PROGRAM
map=         # as score.py
. "$(dirname "$0")/parse_options.sh"

if [ $# -ne 5 ]; then
  sed -n '2,/^set/p' "$0" | grep '^#' >&2
  exit 2
fi
program=$1 model=$2 lm=$3 data=$4 tune=$5
mkdir -p "$tune"
{
  printf 'weight\tbonus\tper\terrors\ttokens\tins\tdel\tsub\n'
  for weight in 0 $weights; do
    for bonus in $bonuses; do
      dir=$tune/weight${weight}_bonus$bonus
      fusion="--insertion-bonus=$bonus"
      if [ "$weight" != 0 ]; then fusion+=" --lm=$lm --lm-weight=$weight"; fi
      once.py --inputs "$model/final.safetensors,$data/feats.scp,$lm" --outputs "$dir/hyp.txt" \
        "$dir/.decoded" decode.sh --nj "$nj" --cmd "$cmd" --options "$options $fusion" \
        "$program" "$model" "$data" "$dir" >&2
      score.py --map "$map" --sclite=false "$data" "$dir" >&2
      awk -v pair="$weight	$bonus" '
        /^%WER/ { gsub(",", ""); print pair "\t" $2 "\t" $4 "\t" $6 "\t" $7 "\t" $9 "\t" $11 }
      ' "$dir/scoring/wer"
    done
  done
} > "$tune/.tune.tmp"
mv "$tune/.tune.tmp" "$tune/tune.tsv"
tail -n +2 "$tune/tune.tsv" | sort -s -t '	' -k 4,4n | head -n 1 | while read -r weight bonus _; do
  echo "--insertion-bonus=$bonus"
  if [ "$weight" != 0 ]; then printf -- '--lm=%s\n--lm-weight=%s\n' "$lm" "$weight"; fi
done > "$tune/best.conf"
cat "$tune/tune.tsv" "$tune/best.conf"
