#!/usr/bin/env bash
# [DS2]'s question on this corpus: what batch normalisation and SortaGrad do for one and for five
# recurrent layers with as many weights. Eight CTC networks over phones, by [DS2]'s regime with small
# batches (conf/deep_speech2/regime/train_ctc_small.conf); prints the best epoch of each.
#
#   local/ask_deep_speech2.sh --corpus /path/to/speechocean762
#
# --corpus DIR                speechocean762
# --epochs N                  epochs of each training
# --work DIR                  folder of all that is made; compare, whose features it shares
# --nj N                      number of jobs of features
# --cmd, --train-cmd PROGRAM  what runs the jobs, and the trainings: see cmd.sh
# --train-launch PROGRAM      what starts the processes of a training: see cmd.sh
# --device cpu|cuda|auto      where trainings compute
# --allow-partial true        accept a corpus that is not whole
# --config FILE               any of these, a line of name=value each
#
# What is done is not done again.
set -euo pipefail
HERE=$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

corpus=
epochs=12
work=compare
nj=2
cmd=                  # default: as cmd.sh says
train_cmd=            # default: as cmd.sh says; e.g. "slurm.py --gpu 1"
train_launch=         # default: as cmd.sh says; e.g. srun
device=auto
allow_partial=false
. "$HERE/../../utils/parse_options.sh"
if [ -z "$corpus" ]; then
  echo "ERROR (ask_deep_speech2.sh) give the corpus: --corpus /path/to/speechocean762" >&2
  exit 2
fi
stage=1 stop_stage=4 model= regime=  # recipe.sh asks for them
. "$HERE/../../utils/recipe.sh"

work=$work/spectrogram data=$work/data exp=$work/exp_question
./run.sh --corpus "$corpus" --features spectrogram --regime conf/compare --work "$work" \
  --nj "$nj" --cmd "$cmd" --allow-partial "$allow_partial" --stop-stage 3 >&2
conf=conf/deep_speech2/regime/train_ctc_small.conf
speech=$data/tokens.txt,$data/train/text,$data/dev/text,$data/train/feats.scp,$data/dev/feats.scp
speech+=,$work/feats/train,$work/feats/dev,$data/train/cmvn.ark
rows=()
for name in 1r 1r_bn 5r 5r_bn; do
  model=conf/deep_speech2/question/$name.toml
  for order in random sortagrad; do
    option=--no-sortagrad
    if [ "$order" = sortagrad ]; then option=--sortagrad; fi
    training "${name}_$order" "$speech,$model,$conf" "$exp/${name}_$order/final.safetensors" \
      train_ctc.py --config="$conf" --epochs="$epochs" "$option" --device="$device" \
      "$model" "$data/tokens.txt" "$data/train" "$data/dev" "$exp/${name}_$order"
    rows+=("${name}_$order=$exp/${name}_$order")
  done
done
print_results.py --title "CTC over phones, $epochs epochs: recurrent layers, bn for batch norm, order" \
  "${rows[@]}"
