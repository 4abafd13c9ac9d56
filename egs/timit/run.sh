#!/usr/bin/env bash
# CTC and RNN transducer on TIMIT: A. Graves 2012 [G12]; Graves, Mohamed and Hinton 2013 [G13].
#
#   ./run.sh                          the demo corpus, made at the first run; minutes
#   ./run.sh --corpus /path/to/TIMIT  TIMIT as the LDC ships it, by the regime of [G13]
#   ./run.sh --corpus … --stage 7     only search and scores, of what is there
#
# Options: --stage N --stop-stage N --corpus DIR --nj N --cmd PROGRAM --train-cmd PROGRAM
# --train-launch PROGRAM --device cpu|cuda|auto --beam W --utt UTTERANCE --work DIR (for data/,
# feats/, exp/, demo corpus) --allow-partial true --model FILE.toml --regime DIR --config FILE (any of
# these, as name=value lines).
# A step whose command, inputs and outputs are unchanged is not run again.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

stage=0
stop_stage=10
corpus=               # TIMIT; empty: the demo corpus
work=                 # folder of data/, feats/, exp/; empty: demo/, with --corpus the recipe's own
nj=2
cmd=                  # what runs jobs; empty: as cmd.sh says
train_cmd=            # the same for trainings, e.g. "slurm.py --gpu 1"; empty: as cmd.sh says
train_launch=         # what starts a training's processes, e.g. srun; empty: as cmd.sh says
device=auto
allow_partial=false   # accept a TIMIT that is not whole
model=                # architecture; empty: conf/demo.toml, with --corpus conf/trans_3l_250h.toml
regime=               # folder of training options; empty: conf/demo, with --corpus conf/g13
beam=                 # empty: 10, with --corpus 100 as in [G13]
utt=                  # whose pictures are drawn; empty: the first of the test set
lm_order=3            # of the n-gram of stage 11
demo_size=full        # or smoke
. "$HERE/../../utils/parse_options.sh"
. "$HERE/../../utils/recipe.sh"

map=conf/phones.60-48-39.map
prepare=()
if [ -n "$corpus" ]; then
  work=${work:-.}
  title="TIMIT: 61 phones folded to 39, sil scored, q dropped"
  model=${model:-conf/trans_3l_250h.toml} regime=${regime:-conf/g13} beam=${beam:-100}
  paper=(--paper "ctc=%PER 18.6 [G13] CTC-3l-250h"
    --paper "transducer=%PER 17.7 [G13] PreTrans-3l-250h")
  if [ "$allow_partial" = true ]; then prepare=(--allow-partial); fi
else
  work=${work:-demo}
  title="demo corpus: synthetic speech, not comparable with TIMIT"
  model=${model:-conf/demo.toml} regime=${regime:-conf/demo} beam=${beam:-10}
  paper=()
  prepare=(--allow-partial)
  corpus=$work/corpus/$demo_size
fi
data=$work/data exp=$work/exp
mkdir -p "$data" "$exp"

if runs 0 && [ "$corpus" = "$work/corpus/$demo_size" ]; then
  begin 0 "demo corpus, in TIMIT's layout"
  mkdir -p "$exp/log"
  # shellcheck disable=SC2086  # $cmd may be a program and its options
  SHOW_OUTPUT=true $cmd --num-threads "$nj" "$exp/log/demo_corpus.log" \
    make_demo_corpus.py --size="$demo_size" --jobs="$nj" "$corpus"
fi

# [G13] section 4: 462 speakers to train on, no SA sentences; 50 for early stopping; core test set.
if runs 1; then
  begin 1 "data directories"
  prepared=$(printf "$data/%s/text," train dev test)$(printf "$data/%s/wav.scp," train dev test)
  step data "$corpus" "$prepared" prepare_data.py "${prepare[@]}" "$corpus" "$data"
fi

# 40 mel filter-bank coefficients and energy, Δ and ΔΔ; mean 0 and variance 1 over the training set.
if runs 2; then
  begin 2 "features: 123 a frame"
  make_features train dev test
fi

if runs 3; then
  begin 3 "tokens: the blank and 61 phones"
  step tokens "$data/train/text,$map" "$data/tokens.txt" \
    train_tokenizer.py --kind=phones --phone-map="$map" --phone-set=61 \
    "ark:$data/train/text" "$data/tokens.txt"
fi

# Section 3: an encoder, a predictor, then both together; only the output network starts random.
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

# Section 3.3: beam search, no length normalisation.
if runs 7; then
  begin 7 "search, beam $beam"
  search dev test
fi

# 61 phones are folded to 39 after search and before alignment; silence is scored.
if runs 8; then
  begin 8 "scores"
  score dev test
fi

# [G12] Figures 2 and 3, [G13] Figure 3, learning curves and confusions, in exp/pictures.
if runs 9; then
  begin 9 "pictures"
  draw test
fi
if runs 10; then
  begin 10 "report"
  report dev test
fi

# Not among the papers' experiments, so only with --stop-stage 11.
if runs 11; then
  begin 11 "shallow fusion with an n-gram of order $lm_order, tuned on dev"
  fuse dev test
fi
