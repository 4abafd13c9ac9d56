#!/usr/bin/env bash
# Train the networks of [G12] Table 1 and [G13] Table 1, any or all, and print both tables with
# ours beside theirs.
#
#   local/run_tables.sh --corpus /path/to/TIMIT         all rows, by the regimes of the papers
#   local/run_tables.sh --corpus DIR --rows "ctc_3l_250h trans_3l_250h"
#   local/run_tables.sh --rows ctc_1l_250h --epochs 2   a try on the demo corpus
#
# --rows "NAME …"             rows to train; default: all. conf/rows/NAME.row has the architecture of
#                             a row, its phases of training, and the paper's number
# --corpus DIR                TIMIT; without it, the demo corpus
# --epochs N                  at most so many epochs in each phase
# --beam N                    beam: number of hypotheses kept; default: the papers'
# --held-out N                size of [G12]'s validation set, utterances of the training set; 184
# --work DIR                  folder of data/, feats/, exp/ and the demo corpus
# --nj N                      number of jobs of features and search
# --cmd, --train-cmd PROGRAM  what runs the jobs, and the trainings: see cmd.sh
# --train-launch PROGRAM      what starts the processes of a training: see cmd.sh
# --device cpu|cuda|auto      where trainings and searches compute
# --allow-partial true        accept a TIMIT that is not whole
# --config FILE               any of these, a line of name=value each
#
# What is done is not done again, so rows can be added one by one. Give a try with --epochs a --work
# of its own: a phase that is continued later changes what the next phase started from.
set -euo pipefail
HERE=$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

corpus=
rows=
epochs=
beam=
held_out=184
work=
nj=2
cmd=                  # default: as cmd.sh says
train_cmd=            # default: as cmd.sh says; e.g. "slurm.py --gpu 1"
train_launch=         # default: as cmd.sh says; e.g. srun
device=auto
allow_partial=false
demo_size=full        # size of the demo corpus, full or smoke
. "$HERE/../../utils/parse_options.sh"
asked_beam=$beam
stage=1 stop_stage=8 model= regime=  # recipe.sh asks for them
. "$HERE/../../utils/recipe.sh"
map=conf/phones.60-48-39.map

if [ -n "$corpus" ]; then work=${work:-.}; else work=${work:-demo}; fi
if [ -z "$rows" ]; then rows=$(basename -s .row -a conf/rows/*.row | grep -v _b$); fi
for name in $rows; do
  if [ ! -f "conf/rows/$name.row" ]; then
    known=$(basename -s .row -a conf/rows/*.row | xargs)
    _usage_error "--rows: no conf/rows/$name.row; there are $known"
  fi
done
exp=$work/exp/tables
mkdir -p "$exp"

# Data directories, features of [G13] and tokens come from the recipe.
prepare=(--regime conf/g13 --stop-stage 3 --work "$work" --nj "$nj" --cmd "$cmd"
  --allow-partial "$allow_partial" --demo-size "$demo_size")
if [ -n "$corpus" ]; then prepare+=(--corpus "$corpus"); fi
./run.sh "${prepare[@]}"

# [G12] has 39 phones from the start, 26 features a frame, and holds out training utterances.
prepare_g12() {
  local set from=$work/data to=$work/data/g12
  mkdir -p "$to"
  step g12_split \
    "$from/train/text,$from/train/wav.scp,$from/test/text,$from/test/wav.scp,$map" \
    "$to/train/text,$to/held_out/text,$to/test/text" \
    local/split_g12.sh --held-out "$held_out" --map "$map" "$from" "$to"
  for set in train held_out test; do
    step "g12_feats_$set" "$to/$set/wav.scp,conf/mfcc.conf,conf/delta_mfcc.conf" \
      "$to/$set/feats.scp,$to/$set/utt2num_frames,$to/$set/conf,$work/feats/g12_$set" \
      make_feats.sh --nj "$nj" --cmd "$cmd" --conf conf/mfcc.conf \
      --delta-conf conf/delta_mfcc.conf "$to/$set" "$work/feats/g12_$set"
  done
  heavy g12_cmvn "$to/train/feats.scp,$work/feats/g12_train" "$to/train/cmvn.ark" \
    compute_cmvn_stats.py "scp:$to/train/feats.scp" "$to/train/cmvn.ark"
  step g12_tokens "$to/train/text,$map" "$to/tokens.txt" \
    train_tokenizer.py --kind=phones --phone-map="$map" --phone-set=39 "ark:$to/train/text" \
    "$to/tokens.txt"
}

# phases KIND NAME CONFS [--init…=DIR …]: one training for each of CONFS, each from where the one
# before ended; the first from the networks in DIRs. $last becomes the directory of the last.
phases() {
  local kind=$1 confs=$3 init=("${@:4}") conf option inputs shared=(--device="$device")
  local sources=$model,$data/tokens.txt,$data/train/text,$data/$dev/text
  if [ "$kind" != predictor ]; then
    sources+=,$data/train/feats.scp,$data/train/cmvn.ark,$data/$dev/feats.scp
    sources+=,$work/feats/${prefix}train,$work/feats/$prefix$dev
    if [ -n "$fold" ]; then shared+=(--phone-map="$fold"); fi
  fi
  if [ -n "$epochs" ]; then shared+=(--epochs="$epochs"); fi
  for conf in $confs; do
    last=$exp/$2_$(basename "$conf") inputs=$sources,conf/$conf.conf
    for option in "${init[@]}"; do inputs+=,${option#*=}/final.safetensors; done
    training "$(basename "$last")" "$inputs" "$last/final.safetensors" \
      "train_$kind.py" --config="conf/$conf.conf" "${shared[@]}" "${init[@]}" \
      "$model" "$data/tokens.txt" "$data/train" "$data/$dev" "$last"
    init=(--init="$last")
  done
}

results=()
for name in $rows; do
  row='' table='' kind='' paper='' phases='' pretrain_ctc='' pretrain_predictor=''
  beam=100 normalise=false prefix_search=false
  # shellcheck source=/dev/null
  _plain "conf/rows/$name.row"
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
    done
    score.sh --cmd "$cmd" --options "--name=PER ${fold:+--map=$fold}" \
      "$data/$dev" "$last/decode_$dev" "$data/test" "$last/decode_test" >&2
  fi
  results+=("$table:$row:$paper=$last")
done
print_tables.py "${results[@]}"
