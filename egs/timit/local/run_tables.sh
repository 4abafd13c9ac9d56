#!/usr/bin/env bash
# Train the networks of [G12] Table 1 and [G13] Table 1, any or all, and print both tables with
# ours beside theirs.
#
#   local/run_tables.sh --corpus /path/to/TIMIT                       all rows, by the papers' regime
#   local/run_tables.sh --corpus DIR --rows "ctc_3l_250h trans_3l_250h"
#   local/run_tables.sh --rows ctc_1l_250h --epochs 2                 a try on the demo corpus
#
# A row is a file of conf/rows/: architecture, phases of training, the paper's number. Options:
# --corpus DIR --rows "NAME …" --epochs N (at most so many a phase) --beam W (instead of the
# papers') --held-out N ([G12]'s validation set: utterances of the training set; 184)
# --work DIR --nj N --cmd PROGRAM --device cpu|cuda|auto --allow-partial true.
# What is done is not done again: rows can be added one by one. A try with --epochs wants a --work of
# its own: a phase that goes on changes what the next one started from.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

corpus=
rows=
epochs=
beam=
held_out=184
work=
nj=2
cmd=
device=auto
allow_partial=false
demo_size=full        # or smoke
. "$HERE/../../utils/parse_options.sh"
asked_beam=$beam
stage=1 stop_stage=8 model= regime=  # for recipe.sh alone
. "$HERE/../../utils/recipe.sh"
map=conf/phones.60-48-39.map

if [ -n "$corpus" ]; then work=${work:-.}; else work=${work:-demo}; fi
if [ -z "$rows" ]; then rows=$(basename -s .row -a conf/rows/*.row | grep -v _b$); fi
for name in $rows; do
  if [ ! -f "conf/rows/$name.row" ]; then
    _usage_error "--rows: no conf/rows/$name.row; there are $(basename -s .row -a conf/rows/*.row | xargs)"
  fi
done
exp=$work/exp/tables
mkdir -p "$exp"

# Data directories, features of [G13] and tokens come from the recipe.
prepare=(--regime conf/g13 --stop-stage 3 --work "$work" --nj "$nj" --allow-partial "$allow_partial"
  --demo-size "$demo_size")
if [ -n "$corpus" ]; then prepare+=(--corpus "$corpus"); fi
if [ -n "$cmd" ]; then prepare+=(--cmd "$cmd"); fi
./run.sh "${prepare[@]}"

# [G12] has 39 phones from the start, 26 features a frame, and holds out training utterances.
prepare_g12() {
  local set from=$work/data to=$work/data/g12
  mkdir -p "$to"
  step g12_split "$from/train/text,$from/train/wav.scp,$from/test/text,$from/test/wav.scp,$map" "$to/train/text,$to/held_out/text,$to/test/text" \
    local/split_g12.sh --held-out "$held_out" --map "$map" "$from" "$to"
  for set in train held_out test; do
    step "g12_feats_$set" "$to/$set/wav.scp,conf/mfcc.conf,conf/delta_mfcc.conf" \
      "$to/$set/feats.scp,$to/$set/utt2num_frames,$to/$set/conf,$work/feats/g12_$set" \
      make_feats.sh --nj "$nj" --cmd "$cmd" --conf conf/mfcc.conf \
      --delta-conf conf/delta_mfcc.conf "$to/$set" "$work/feats/g12_$set"
  done
  step g12_cmvn "$to/train/feats.scp,$work/feats/g12_train" "$to/train/cmvn.ark" \
    compute_cmvn_stats.py "scp:$to/train/feats.scp" "$to/train/cmvn.ark"
  step g12_tokens "$to/train/text,$map" "$to/tokens.txt" \
    train_tokenizer.py --kind=phones --phone-map="$map" --phone-set=39 "ark:$to/train/text" \
    "$to/tokens.txt"
}

# phase KIND CONF MODEL_DIR [--init…=DIR …]: one training.
phase() {
  local kind=$1 conf=conf/$2.conf dir=$3 option inputs shared=(--device="$device")
  inputs=$model,$data/tokens.txt,$data/train/text,$data/$dev/text,conf/$2.conf
  if [ "$kind" != predictor ]; then
    inputs+=,$data/train/feats.scp,$data/train/cmvn.ark,$data/$dev/feats.scp
    inputs+=,$work/feats/${prefix}train,$work/feats/$prefix$dev
    if [ -n "$fold" ]; then shared+=(--phone-map="$fold"); fi
  fi
  if [ -n "$epochs" ]; then shared+=(--epochs="$epochs"); fi
  for option in "${@:4}"; do inputs+=,${option#*=}/final.safetensors; done
  step "$(basename "$dir")" "$inputs" "$dir/final.safetensors" \
    "train_$kind.py" --config="$conf" "${shared[@]}" "${@:4}" \
    "$model" "$data/tokens.txt" "$data/train" "$data/$dev" "$dir"
}

# phases KIND NAME CONFS [--init…=DIR …]: trainings of which each starts from the one before; sets
# $last to the last one's directory.
phases() {
  local conf init=("${@:4}")
  for conf in $3; do
    last=$exp/$2_$(basename "$conf")
    phase "$1" "$conf" "$last" "${init[@]}"
    init=(--init="$last")
  done
}

results=()
for name in $rows; do
  row='' table='' kind='' paper='' phases='' pretrain_ctc='' pretrain_predictor=''
  beam=100 normalise=false prefix_search=false
  # shellcheck source=/dev/null
  . "conf/rows/$name.row"
  echo "LOG (run_tables.sh) [$table] $row" >&2
  # 61 phones are folded before they are scored; with 39 there is nothing to fold.
  if [ "$table" = G12 ]; then
    prepare_g12
    data=$work/data/g12 dev=held_out fold= prefix=g12_
  else
    data=$work/data dev=dev fold=$map prefix=
  fi
  init=()
  if [ -n "$pretrain_ctc" ]; then
    phases ctc "${name}_ctc" "$pretrain_ctc"
    init+=(--init-ctc="$last")
  fi
  if [ -n "$pretrain_predictor" ]; then
    phases predictor "${name}_predictor" "$pretrain_predictor"
    init+=(--init-predictor="$last")
  fi
  phases "$kind" "$name" "$phases" "${init[@]}"
  if [ "$kind" != predictor ]; then
    options="--beam=${asked_beam:-$beam} --device=$device"
    if [ "$normalise" = true ]; then options+=" --length-normalise"; fi
    if [ "$prefix_search" = true ]; then options+=" --prefix-search"; fi
    for set in "$dev" test; do
      step "decode_${name}_$set" \
        "$last/final.safetensors,$data/$set/feats.scp,$work/feats/$prefix$set" \
        "$last/decode_$set/hyp.txt" \
        decode.sh --nj "$nj" --cmd "$cmd" --options "$options" "decode_$kind.py" "$last" \
        "$data/$set" "$last/decode_$set"
      score.py --map "$fold" "$data/$set" "$last/decode_$set" >&2
    done
  fi
  results+=("$table:$row:$paper=$last")
done
print_tables.py "${results[@]}"
