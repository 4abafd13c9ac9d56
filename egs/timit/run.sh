#!/usr/bin/env bash
# CTC and RNN transducer on TIMIT: A. Graves 2012 [G12]; Graves, Mohamed and Hinton 2013 [G13].
#
#   ./run.sh                          on the demo corpus, which the first run makes; minutes
#   ./run.sh --corpus /path/to/TIMIT  on TIMIT as the LDC ships it, by the regime of [G13]
#   ./run.sh --corpus DIR --stage 7   only search and scores, with the networks that are there
#
# --stage N --stop-stage N    first and last stage to run
# --corpus DIR                TIMIT; without it, the demo corpus
# --work DIR                  folder of data/, feats/, exp/ and the demo corpus
# --nj N                      number of jobs of features and search
# --cmd, --train-cmd PROGRAM  what runs the jobs, and the trainings: see cmd.sh
# --train-launch PROGRAM      what starts the processes of a training: see cmd.sh
# --device cpu|cuda|auto      where trainings and searches compute
# --model FILE.toml           architecture of the networks
# --regime DIR                folder of the options of the trainings
# --beam N                    beam: number of hypotheses kept
# --utt UTTERANCE             which utterance of the test set is drawn
# --allow-partial true        accept a TIMIT that is not whole
# --config FILE               any of these, a line of name=value each
#
# A step is skipped if its command, its inputs and its outputs have not changed since it was run.
set -euo pipefail
HERE=$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

stage=0
stop_stage=10
corpus=
work=                 # default: demo; with --corpus the recipe's own folder
nj=2
cmd=                  # default: as cmd.sh says
train_cmd=            # default: as cmd.sh says; e.g. "slurm.py --gpu 1"
train_launch=         # default: as cmd.sh says; e.g. srun
device=auto
allow_partial=false
model=                # default: conf/demo.toml; with --corpus conf/trans_3l_250h.toml
regime=               # default: conf/demo; with --corpus conf/g13
beam=                 # default: 10; with --corpus 100 as in [G13]
utt=                  # default: the first of the test set
lm_order=3            # order of the n-gram of stage 11
demo_size=full        # size of the demo corpus, full or smoke
. "$HERE/../../utils/parse_options.sh"
. "$HERE/../../utils/recipe.sh"

partial=() paper=()
if [ "$allow_partial" = true ] || [ -z "$corpus" ]; then partial=(--allow-partial); fi
if [ -n "$corpus" ]; then
  demo=false work=${work:-.}
  model=${model:-conf/trans_3l_250h.toml} regime=${regime:-conf/g13} beam=${beam:-100}
  title="TIMIT: 61 phones folded to 39, sil scored, q dropped"
  paper=(--paper "ctc=%PER 18.6 [G13] CTC-3l-250h"
    --paper "transducer=%PER 17.7 [G13] PreTrans-3l-250h")
else
  demo=true work=${work:-demo}
  model=${model:-conf/demo.toml} regime=${regime:-conf/demo} beam=${beam:-10}
  title="demo corpus: synthetic speech, not comparable with TIMIT"
  corpus=$work/corpus/$demo_size
fi
data=$work/data exp=$work/exp map=conf/phones.60-48-39.map
mkdir -p "$data" "$exp/log"

# The directories of the trained networks; a regime may train a network a second time, with noise.
ctc=$exp/ctc predictor=$exp/predictor transducer=$exp/transducer
if [ -f "$regime/train_ctc_noise.conf" ]; then ctc=$exp/ctc_noise; fi
if [ -f "$regime/train_predictor_noise.conf" ]; then predictor=$exp/predictor_noise; fi
if [ -f "$regime/train_transducer_noise.conf" ]; then transducer=$exp/transducer_noise; fi

# Features are normalised by the statistics of each speaker or, as in [G13], of the training set.
by_speaker=false cmvn=$data/train/cmvn.ark
if grep -qs '^--cmvn=speaker' "$regime"/train_*.conf; then
  by_speaker=true cmvn=$data/train/cmvn.scp,$data/dev/cmvn.scp
fi

if runs 0 && [ "$demo" = true ]; then
  begin 0 "demo corpus, in TIMIT's layout"
  job_words make_demo_corpus.py --size="$demo_size" --jobs="$nj" "$corpus"
  # shellcheck disable=SC2086  # $cmd may be a program and its options
  SHOW_OUTPUT=true $cmd --num-threads "$nj" "$exp/log/demo_corpus.log" "${words[@]}"
fi

# [G13] section 4: 462 speakers to train on, no SA sentences; 50 for early stopping; core test set.
if runs 1; then
  begin 1 "data directories"
  prepared=$(printf '%s,' "$data"/{train,dev,test}/text "$data"/{train,dev,test}/wav.scp)
  step data "$corpus" "$prepared" prepare_data.py "${partial[@]}" "$corpus" "$data"
fi

# 40 mel filter-bank coefficients and energy, Δ and ΔΔ; mean 0 and variance 1 over the training set.
if runs 2; then
  begin 2 "features: 123 a frame"
  for set in train dev test; do
    step "feats_$set" "$data/$set/wav.scp,conf/fbank.conf,conf/delta.conf" \
      "$data/$set/feats.scp,$data/$set/utt2num_frames,$data/$set/conf,$work/feats/$set" \
      make_feats.sh --nj "$nj" --cmd "$cmd" --conf conf/fbank.conf --delta-conf conf/delta.conf \
      "$data/$set" "$work/feats/$set"
  done
  if [ "$by_speaker" = false ]; then
    heavy cmvn "$data/train/feats.scp,$work/feats/train" "$data/train/cmvn.ark" \
      compute_cmvn_stats.py "scp:$data/train/feats.scp" "$data/train/cmvn.ark"
  else
    feats=$(CDPATH='' cd "$work/feats" && pwd) # cmvn.scp names the archive by its whole path
    for set in train dev test; do
      heavy "cmvn_$set" "$data/$set/feats.scp,$data/$set/spk2utt,$work/feats/$set" \
        "$data/$set/cmvn.scp,$feats/cmvn_$set.ark" \
        compute_cmvn_stats.py --spk2utt="ark:$data/$set/spk2utt" "scp:$data/$set/feats.scp" \
        "ark,scp:$feats/cmvn_$set.ark,$data/$set/cmvn.scp"
    done
  fi
fi

if runs 3; then
  begin 3 "tokens: the blank and 61 phones"
  step tokens "$data/train/text,$map" "$data/tokens.txt" \
    train_tokenizer.py --kind=phones --phone-map="$map" --phone-set=61 \
    "ark:$data/train/text" "$data/tokens.txt"
fi

# [G13] section 3: an encoder, a predictor, then both together, where only the output network starts
# from random weights. The regime of [G13] trains each result a second time, from where the first
# training ended, with weight noise.
text=$model,$data/tokens.txt,$data/train/text,$data/dev/text
speech=$text,$data/train/feats.scp,$data/dev/feats.scp,$work/feats/train,$work/feats/dev,$cmvn

if runs 4; then
  begin 4 "CTC network"
  training ctc "$speech,$regime/train_ctc.conf" "$exp/ctc/final.safetensors" \
    train_ctc.py --config="$regime/train_ctc.conf" --device="$device" --phone-map="$map" \
    "$model" "$data/tokens.txt" "$data/train" "$data/dev" "$exp/ctc"
  if [ "$ctc" != "$exp/ctc" ]; then
    training ctc_noise "$speech,$regime/train_ctc_noise.conf,$exp/ctc/final.safetensors" \
      "$ctc/final.safetensors" \
      train_ctc.py --config="$regime/train_ctc_noise.conf" --device="$device" --phone-map="$map" \
      --init="$exp/ctc" "$model" "$data/tokens.txt" "$data/train" "$data/dev" "$ctc"
  fi
fi

if runs 5; then
  begin 5 "prediction network, on the transcriptions"
  training predictor "$text,$regime/train_predictor.conf" "$exp/predictor/final.safetensors" \
    train_predictor.py --config="$regime/train_predictor.conf" --device="$device" \
    "$model" "$data/tokens.txt" "$data/train" "$data/dev" "$exp/predictor"
  if [ "$predictor" != "$exp/predictor" ]; then
    training predictor_noise \
      "$text,$regime/train_predictor_noise.conf,$exp/predictor/final.safetensors" \
      "$predictor/final.safetensors" \
      train_predictor.py --config="$regime/train_predictor_noise.conf" --device="$device" \
      --init="$exp/predictor" "$model" "$data/tokens.txt" "$data/train" "$data/dev" "$predictor"
  fi
fi

if runs 6; then
  begin 6 "transducer, from both"
  both=$exp/ctc/final.safetensors,$exp/predictor/final.safetensors
  training transducer "$speech,$regime/train_transducer.conf,$both" \
    "$exp/transducer/final.safetensors" \
    train_transducer.py --config="$regime/train_transducer.conf" --device="$device" \
    --phone-map="$map" --init-ctc="$exp/ctc" --init-predictor="$exp/predictor" \
    "$model" "$data/tokens.txt" "$data/train" "$data/dev" "$exp/transducer"
  if [ "$transducer" != "$exp/transducer" ]; then
    training transducer_noise \
      "$speech,$regime/train_transducer_noise.conf,$exp/transducer/final.safetensors" \
      "$transducer/final.safetensors" \
      train_transducer.py --config="$regime/train_transducer_noise.conf" --device="$device" \
      --phone-map="$map" --init="$exp/transducer" \
      "$model" "$data/tokens.txt" "$data/train" "$data/dev" "$transducer"
  fi
fi

# [G13] section 3.3: beam search, no length normalisation.
if runs 7; then
  begin 7 "search, beam $beam"
  for set in dev test; do
    step "decode_ctc_$set" "$ctc/final.safetensors,$data/$set/feats.scp,$work/feats/$set" \
      "$ctc/decode_$set/hyp.txt,$ctc/decode_$set/nbest" \
      decode.sh --nj "$nj" --cmd "$cmd" --options "--beam=$beam --device=$device" \
      decode_ctc.py "$ctc" "$data/$set" "$ctc/decode_$set"
    step "decode_transducer_$set" \
      "$transducer/final.safetensors,$data/$set/feats.scp,$work/feats/$set" \
      "$transducer/decode_$set/hyp.txt,$transducer/decode_$set/nbest" \
      decode.sh --nj "$nj" --cmd "$cmd" --options "--beam=$beam --device=$device" \
      decode_transducer.py "$transducer" "$data/$set" "$transducer/decode_$set"
  done
fi

# 61 phones are folded to 39 after search and before alignment; silence is scored.
if runs 8; then
  begin 8 "scores"
  score.sh --cmd "$cmd" --options "--name=PER --map=$map" --log "$exp/log" \
    "$data/dev" "$ctc/decode_dev" "$data/test" "$ctc/decode_test" \
    "$data/dev" "$transducer/decode_dev" "$data/test" "$transducer/decode_test" >&2
  print_results.py --title "$title" "${paper[@]}" \
    "ctc=$ctc" "predictor=$predictor" "transducer=$transducer"
fi

# [G12] Figures 2 and 3, [G13] Figure 3, confusions and learning curves.
if runs 9; then
  begin 9 "pictures"
  mkdir -p "$exp/pictures"
  # draw NAME INPUTS COMMAND …: a step whose COMMAND ends with the picture that it writes
  draw() { step "picture_$1" "$2" "$exp/pictures/$1.png" "${@:3}" "$exp/pictures/$1.png"; }
  if [ -z "$utt" ]; then read -r utt _ < "$data/test/text"; fi
  said=$data/test/feats.scp,$data/test/text
  options=(--text="ark:$data/test/text") times=()
  if [ "$by_speaker" = true ]; then
    options+=(--cmvn="scp:$data/test/cmvn.scp" --utt2spk="ark:$data/test/utt2spk")
  fi
  if [ -f "$data/test/phones.ctm" ]; then times=(--ctm="$data/test/phones.ctm"); fi
  draw posteriors_ctc "$ctc/final.safetensors,$said" \
    plot_posteriors.py "${times[@]}" "${options[@]}" -- "$ctc" "scp:$data/test/feats.scp" "$utt"
  draw sensitivity_ctc "$ctc/final.safetensors,$said" \
    plot_sensitivity.py "${times[@]}" "${options[@]}" -- "$ctc" "scp:$data/test/feats.scp" "$utt"
  draw posteriors_transducer "$transducer/final.safetensors,$said" \
    plot_posteriors.py "${times[@]}" "${options[@]}" -- \
    "$transducer" "scp:$data/test/feats.scp" "$utt"
  draw sensitivity_transducer "$transducer/final.safetensors,$said" \
    plot_sensitivity.py "${options[@]}" -- "$transducer" "scp:$data/test/feats.scp" "$utt"
  draw lattice "$transducer/final.safetensors,$said" \
    plot_lattice.py "${options[@]}" -- "$transducer" "scp:$data/test/feats.scp" "$utt"
  draw confusions_ctc "$ctc/decode_test/scoring/alignments" \
    plot_confusions.py --title="ctc, test" "$ctc/decode_test/scoring/alignments"
  draw confusions_transducer "$transducer/decode_test/scoring/alignments" \
    plot_confusions.py --title="transducer, test" "$transducer/decode_test/scoring/alignments"
  draw training "$ctc/metrics.jsonl,$predictor/metrics.jsonl,$transducer/metrics.jsonl" \
    plot_training.py "$ctc" "$predictor" "$transducer"
fi

if runs 10; then
  begin 10 "report"
  scores=$(printf '%s/scoring/score.json,' {"$ctc","$transducer"}/decode_{dev,test})
  step report "$scores" "$exp/report.html" \
    make_report.py --title="$title" "$ctc" "$transducer" --output="$exp/report.html"
  echo "LOG (run.sh) open $exp/report.html" >&2
fi

# The papers have no language model, so this stage is run only with --stop-stage 11: an n-gram of
# the transcriptions, whose weight and insertion bonus are tuned on dev.
if runs 11; then
  begin 11 "shallow fusion with an n-gram of order $lm_order, tuned on dev"
  lm=$exp/lm/${lm_order}gram.arpa
  mkdir -p "$exp/lm"
  step lm "$data/train/text,$data/tokens.txt" "$lm" \
    make_ngram_lm.py --order="$lm_order" --vocab="$data/tokens.txt" "ark:$data/train/text" "$lm"
  for kind in ctc transducer; do
    dir=${!kind}
    step "tune_$kind" "$dir/final.safetensors,$lm,$data/dev/feats.scp,$work/feats/dev" \
      "$dir/tune_dev/tune.tsv,$dir/tune_dev/best.conf" \
      tune_fusion.sh --nj "$nj" --cmd "$cmd" --name PER --map "$map" \
      --options "--beam=$beam --device=$device" \
      "decode_$kind.py" "$dir" "$lm" "$data/dev" "$dir/tune_dev"
    for set in dev test; do
      step "fused_${kind}_$set" \
        "$dir/tune_dev/best.conf,$lm,$data/$set/feats.scp,$work/feats/$set" \
        "$dir/decode_fused_$set/hyp.txt" \
        decode.sh --nj "$nj" --cmd "$cmd" \
        --options "$(option_word "--config=$dir/tune_dev/best.conf") --beam=$beam --device=$device" \
        "decode_$kind.py" "$dir" "$data/$set" "$dir/decode_fused_$set"
    done
    score.sh --cmd "$cmd" --options "--name=PER --map=$map" \
      "$data/dev" "$dir/decode_fused_dev" "$data/test" "$dir/decode_fused_test" >&2
  done
fi
