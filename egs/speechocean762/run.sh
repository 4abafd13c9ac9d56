#!/usr/bin/env bash
# CTC and RNN transducer on speechocean762: English read by Mandarin speakers, half of them
# children (J. Zhang et al., Interspeech 2021; OpenSLR 101).
#
#   ./run.sh --corpus /path/to/speechocean762
#   ./run.sh --corpus DIR --stage 7   only search and scores, of what is there
#
# Options: --stage N --stop-stage N --nj N --cmd PROGRAM --train-cmd PROGRAM --train-launch PROGRAM
# --device cpu|cuda|auto --beam W --utt UTTERANCE --work DIR (where data/, feats/ and exp/ go)
# --model FILE.toml --regime DIR --config FILE (any of these, as name=value lines). `test` is used
# where the corpus has it.
# A step whose command, inputs and outputs are unchanged is not run again.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

stage=1
stop_stage=10
corpus=
work=.
nj=2
cmd=                      # what runs jobs; empty: as cmd.sh says
train_cmd=                # the same for trainings, e.g. "slurm.py --gpu 1"; empty: as cmd.sh says
train_launch=             # what starts a training's processes, e.g. srun; empty: as cmd.sh says
device=auto
allow_partial=false       # accept a corpus that is not whole
model=conf/model.toml     # architecture
regime=conf/modern        # folder of training options
beam=10
utt=                      # whose pictures are drawn; empty: the first of the last set
lm_order=3                # of the n-gram of stage 11
. "$HERE/../../utils/parse_options.sh"
if [ -z "$corpus" ] && [ "$stage" -le 1 ]; then
  echo "ERROR (run.sh) give the corpus: ./run.sh --corpus /path/to/speechocean762" >&2
  exit 2
fi
. "$HERE/../../utils/recipe.sh"

data=$work/data exp=$work/exp map=
title="speechocean762: 39 phones of the canonical transcription, no silence"
paper=()
mkdir -p "$data" "$exp"
prepare=()
if [ "$allow_partial" = true ]; then prepare=(--allow-partial); fi

# Every tenth of the sorted training speakers, from the fifth, is dev.
if runs 1; then
  begin 1 "data directories"
  prepared=$(printf "$data/%s/text," train dev)$(printf "$data/%s/wav.scp," train dev)
  step data "$corpus,$corpus/train" "$prepared" prepare_data.py "${prepare[@]}" "$corpus" "$data"
fi
sets=(dev)
if [ -d "$data/test" ]; then sets+=(test); fi

if runs 2; then
  begin 2 "features: 123 a frame"
  make_features train "${sets[@]}"
fi

if runs 3; then
  begin 3 "tokens: the blank and 39 phones"
  step tokens "$data/train/text" "$data/tokens.txt" \
    train_tokenizer.py --kind=phones "ark:$data/train/text" "$data/tokens.txt"
fi

if runs 4; then
  begin 4 "CTC network"
  train ctc
fi
if runs 5; then
  begin 5 "prediction network, on the transcriptions"
  train predictor
fi
if runs 6; then
  begin 6 "transducer, from both"
  train transducer --init-ctc="$exp/ctc" --init-predictor="$exp/predictor"
fi

if runs 7; then
  begin 7 "search, beam $beam"
  search "${sets[@]}"
fi

if runs 8; then
  begin 8 "scores"
  score "${sets[@]}"
fi

# [G12] Figures 2 and 3, [G13] Figure 3, learning curves and confusions, in exp/pictures.
if runs 9; then
  begin 9 "pictures"
  draw "${sets[-1]}"
fi
if runs 10; then
  begin 10 "report"
  report "${sets[@]}"
fi

# Not among the papers' experiments, so only with --stop-stage 11.
if runs 11; then
  begin 11 "shallow fusion with an n-gram of order $lm_order, tuned on dev"
  fuse "${sets[@]}"
fi
