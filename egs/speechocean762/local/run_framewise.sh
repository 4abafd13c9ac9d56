#!/usr/bin/env bash
# Frame-wise networks on the alignments of a CTC network of the recipe, as H. Sak et al., 2014: LSTM
# and LSTMP with as many weights, found by Viterbi's search with a bigram of the phones.
#
#   local/run_framewise.sh                       after stages 1 to 4 of ./run.sh
#   local/run_framewise.sh --work compare/fbank --tag blstm    after compare_encoders.sh
#
# --networks "NAME …"         files of conf/framewise; default: all
# --work DIR                  folder of data/, feats/ and exp/
# --tag NAME                  end of the name of the exp/ whose ctc aligns
# --regime DIR                folder of train_framewise.conf
# --lm-weight X               weight of the bigram in the search
# --nj N                      number of jobs of the search
# --cmd, --train-cmd PROGRAM  what runs the jobs, and the trainings: see cmd.sh
# --train-launch PROGRAM      what starts the processes of a training: see cmd.sh
# --device cpu|cuda|auto      where trainings and searches compute
# --config FILE               any of these, a line of name=value each
#
# A step is skipped if its command, its inputs and its outputs have not changed since it was run.
set -euo pipefail
HERE=$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

networks=
work=.
tag=
regime=conf/modern
lm_weight=1
nj=2
cmd=                  # default: as cmd.sh says
train_cmd=            # default: as cmd.sh says; e.g. "slurm.py --gpu 1"
train_launch=         # default: as cmd.sh says; e.g. srun
device=auto
. "$HERE/../../utils/parse_options.sh"
stage=1 stop_stage=4 corpus= model=  # recipe.sh asks for them
. "$HERE/../../utils/recipe.sh"
known=$(basename -s .toml -a conf/framewise/*.toml | xargs)
networks=${networks:-$known}
for name in $networks; do
  if [ ! -f "conf/framewise/$name.toml" ]; then
    _usage_error "--networks: no conf/framewise/$name.toml; there are $known"
  fi
done
data=$work/data exp=$work/exp_framewise ctc=$work/exp${tag:+_$tag}/ctc
if [ ! -f "$ctc/final.safetensors" ]; then
  echo "ERROR (run_framewise.sh) no CTC network $ctc; run stages 1 to 4 of ./run.sh" >&2
  exit 1
fi
mkdir -p "$exp/log"

for set in train dev; do
  step "align_$set" "$ctc/final.safetensors,$data/$set/feats.scp,$data/$set/text,$work/feats/$set" \
    "$data/$set/ali.ark,$data/$set/ali.scp" \
    align_tokens.py --device="$device" "$ctc" "scp:$data/$set/feats.scp" "ark:$data/$set/text" \
    "ark,scp:$data/$set/ali.ark,$data/$set/ali.scp"
done
step bigram "$data/train/text" "$exp/bigram.arpa" \
  make_ngram_lm.py --order=2 --vocab="$data/tokens.txt" "ark:$data/train/text" "$exp/bigram.arpa"
speech=$data/tokens.txt,$data/train/feats.scp,$data/dev/feats.scp,$data/train/ali.scp
speech+=,$data/dev/ali.scp,$work/feats/train,$work/feats/dev,$data/train/cmvn.ark
pairs=() rows=()
for name in $networks; do
  model=conf/framewise/$name.toml dir=$exp/$name
  training "$name" "$speech,$model,$regime/train_framewise.conf" "$dir/final.safetensors" \
    train_framewise.py --config="$regime/train_framewise.conf" --device="$device" "$model" \
    "$data/tokens.txt" "$data/train" "$data/dev" "$dir"
  step "decode_$name" "$dir/final.safetensors,$exp/bigram.arpa,$data/dev/feats.scp" \
    "$dir/decode_dev/hyp.txt" \
    decode.sh --nj "$nj" --cmd "$cmd" \
    --options "$(option_word "--lm=$exp/bigram.arpa") --lm-weight=$lm_weight --device=$device" \
    decode_framewise.py "$dir" "$data/dev" "$dir/decode_dev"
  pairs+=("$data/dev" "$dir/decode_dev")
  rows+=("$name=$dir")
done
score.sh --cmd "$cmd" --options "--name=PER" --log "$exp/log" "${pairs[@]}" >&2
print_results.py --title "Frame-wise networks: 39 phones" "${rows[@]}"
