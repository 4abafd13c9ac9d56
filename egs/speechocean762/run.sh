#!/usr/bin/env bash
# CTC and RNN transducer on speechocean762: English read by Mandarin speakers, half of them
# children (J. Zhang et al., Interspeech 2021; OpenSLR 101).
#
#   ./run.sh --corpus /path/to/speechocean762
#   ./run.sh --corpus DIR --units char
#   ./run.sh --corpus DIR --stage 7   only search and scores, with the networks that are there
#
# --stage N --stop-stage N    first and last stage to run
# --corpus DIR                speechocean762; its test set is used where it has one
# --units UNITS               phone, or of words char, bigram, bpe or unigram
# --work DIR                  folder of data/, feats/ and exp/; of words data_UNITS/ and exp_UNITS/
# --tag NAME                  end of the name of exp/, so that several networks share data/ and feats/
# --nj N                      number of jobs of features and search
# --cmd, --train-cmd PROGRAM  what runs the jobs, and the trainings: see cmd.sh
# --train-launch PROGRAM      what starts the processes of a training: see cmd.sh
# --device cpu|cuda|auto      where trainings and searches compute
# --features KIND             fbank, or spectrogram for [DS2]; give each kind a --work of its own
# --model FILE.toml           architecture of the networks
# --regime DIR                folder of the options of the trainings
# --beam N                    beam: number of hypotheses kept
# --vocab-size N              number of tokens of bpe and unigram
# --lm-beam N                 beam with a language model; default: --beam, but 100 for words
# --utt UTTERANCE             which utterance of the last set is drawn
# --allow-partial true        accept a corpus that is not whole
# --config FILE               any of these, a line of name=value each
#
# A step is skipped if its command, its inputs and its outputs have not changed since it was run.
set -euo pipefail
HERE=$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

stage=1
stop_stage=10
corpus=
units=phone
work=.
tag=
nj=2
cmd=                  # default: as cmd.sh says
train_cmd=            # default: as cmd.sh says; e.g. "slurm.py --gpu 1"
train_launch=         # default: as cmd.sh says; e.g. srun
device=auto
allow_partial=false
features=fbank
model=conf/model.toml
regime=conf/modern
beam=10
vocab_size=200        # tokens of bpe and unigram
utt=                  # default: the first of the last set
lm_order=3            # order of the n-gram of stage 11
lm_beam=
. "$HERE/../../utils/parse_options.sh"
if [ -z "$corpus" ] && [ "$stage" -le 1 ]; then
  echo "ERROR (run.sh) give the corpus: ./run.sh --corpus /path/to/speechocean762" >&2
  exit 2
fi
. "$HERE/../../utils/recipe.sh"

partial=()
if [ "$allow_partial" = true ]; then partial=(--allow-partial); fi
data=$work/data exp=$work/exp${tag:+_$tag}

# What the units are called, how their tokens are made and their hypotheses scored, and how a
# language model is searched with: over phones, or over words as in [DS2].
title="speechocean762: words, spelt in units of kind $units"
scoring=--with-cer fused=(--words true --weights "0.2 0.4 0.7 1" --bonuses "0 1 2")
search="--token-mass=0.99 --max-tokens=40" wide=100
case $units in
  phone)
    title="speechocean762: 39 phones of the canonical transcription, no silence"
    kind=phones scoring=--name=PER fused=(--name PER) search='' wide=$beam ;;
  char) kind=chars ;;
  bigram) kind=bigrams ;;
  bpe | unigram) kind=$units ;;
  *) _usage_error "--units is phone, char, bigram, bpe or unigram, not '$units'" ;;
esac
lm_beam=${lm_beam:-$wide}

# 40 mel filter-bank coefficients and energy, Δ and ΔΔ, or 161 columns of a log spectrum; mean 0 and
# variance 1 over the training set.
case $features in
  fbank) columns=123 delta=conf/delta.conf ;;
  spectrogram) columns=161 delta= ;;
  *) _usage_error "--features is fbank or spectrogram, not '$features'" ;;
esac
mkdir -p "$data" "$exp/log"

# Features are normalised by the statistics of each speaker or, as in [G13], of the training set.
by_speaker=false cmvn=$data/train/cmvn.ark
if grep -qs '^--cmvn=speaker' "$regime"/train_*.conf; then
  by_speaker=true cmvn=$data/train/cmvn.scp,$data/dev/cmvn.scp
fi

# Every tenth of the sorted training speakers, from the fifth, is dev.
if runs 1; then
  begin 1 "data directories"
  prepared=$(printf '%s,' "$data"/{train,dev}/text "$data"/{train,dev}/wav.scp)
  if [[ $corpus == *,* ]]; then _usage_error "--corpus: '$corpus' has a comma; rename the folder"; fi
  step data "$corpus,$corpus/train" "$prepared" prepare_data.py "${partial[@]}" "$corpus" "$data"
fi
sets=(dev)
if [ -d "$data/test" ]; then sets+=(test); fi

if runs 2; then
  begin 2 "features: $columns a frame"
  for set in train "${sets[@]}"; do
    step "feats_$set" "$data/$set/wav.scp,conf/$features.conf${delta:+,$delta}" \
      "$data/$set/feats.scp,$data/$set/utt2num_frames,$data/$set/conf,$work/feats/$set" \
      make_feats.sh --nj "$nj" --cmd "$cmd" --conf "conf/$features.conf" \
      ${delta:+--delta-conf "$delta"} "$data/$set" "$work/feats/$set"
  done
  if [ "$by_speaker" = false ]; then
    heavy cmvn "$data/train/feats.scp,$work/feats/train" "$data/train/cmvn.ark" \
      compute_cmvn_stats.py "scp:$data/train/feats.scp" "$data/train/cmvn.ark"
  else
    feats=$(CDPATH='' cd "$work/feats" && pwd) # cmvn.scp names the archive by its whole path
    for set in train "${sets[@]}"; do
      heavy "cmvn_$set" "$data/$set/feats.scp,$data/$set/spk2utt,$work/feats/$set" \
        "$data/$set/cmvn.scp,$feats/cmvn_$set.ark" \
        compute_cmvn_stats.py --spk2utt="ark:$data/$set/spk2utt" "scp:$data/$set/feats.scp" \
        "ark,scp:$feats/cmvn_$set.ark,$data/$set/cmvn.scp"
    done
  fi
fi

# Words have directories of their own, whose features and statistics are those of the phones.
if [ "$units" != phone ]; then
  phones=$data data=$work/data_$units exp=$work/exp_$units${tag:+_$tag} cmvn=${cmvn//"$phones/"/"$data/"}
  mkdir -p "$exp/log"
fi
if runs 3; then
  begin 3 "tokens: the blank and $kind"
  if [ "$units" != phone ]; then
    copied=$(printf '%s,' "$data"/{train,dev}/{text,feats.scp})
    step words "$phones/train,$phones/dev" "$copied" use_words.py "$phones" "$data"
  fi
  size=()
  if [[ $units == bpe || $units == unigram ]]; then size=(--vocab-size="$vocab_size"); fi
  step tokens "$data/train/text" "$data/tokens.txt" \
    train_tokenizer.py --kind="$kind" "${size[@]}" "ark:$data/train/text" "$data/tokens.txt"
fi

# The directories of the trained networks; a regime may train a network a second time, with noise.
ctc=$exp/ctc predictor=$exp/predictor transducer=$exp/transducer
if [ -f "$regime/train_ctc_noise.conf" ]; then ctc=$exp/ctc_noise; fi
if [ -f "$regime/train_predictor_noise.conf" ]; then predictor=$exp/predictor_noise; fi
if [ -f "$regime/train_transducer_noise.conf" ]; then transducer=$exp/transducer_noise; fi

# [G13] section 3: an encoder, a predictor, then both together, where only the output network starts
# from random weights. The regime of [G13] trains each result a second time, from where the first
# training ended, with weight noise.
text=$model,$data/tokens.txt,$data/train/text,$data/dev/text
speech=$text,$data/train/feats.scp,$data/dev/feats.scp,$work/feats/train,$work/feats/dev,$cmvn

if runs 4; then
  begin 4 "CTC network"
  training ctc "$speech,$regime/train_ctc.conf" "$exp/ctc/final.safetensors" \
    train_ctc.py --config="$regime/train_ctc.conf" --device="$device" \
    "$model" "$data/tokens.txt" "$data/train" "$data/dev" "$exp/ctc"
  if [ "$ctc" != "$exp/ctc" ]; then
    training ctc_noise "$speech,$regime/train_ctc_noise.conf,$exp/ctc/final.safetensors" \
      "$ctc/final.safetensors" \
      train_ctc.py --config="$regime/train_ctc_noise.conf" --device="$device" \
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
    --init-ctc="$exp/ctc" --init-predictor="$exp/predictor" \
    "$model" "$data/tokens.txt" "$data/train" "$data/dev" "$exp/transducer"
  if [ "$transducer" != "$exp/transducer" ]; then
    training transducer_noise \
      "$speech,$regime/train_transducer_noise.conf,$exp/transducer/final.safetensors" \
      "$transducer/final.safetensors" \
      train_transducer.py --config="$regime/train_transducer_noise.conf" --device="$device" \
      --init="$exp/transducer" \
      "$model" "$data/tokens.txt" "$data/train" "$data/dev" "$transducer"
  fi
fi

# [G13] section 3.3: beam search, no length normalisation.
if runs 7; then
  begin 7 "search, beam $beam"
  for set in "${sets[@]}"; do
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

if runs 8; then
  begin 8 "scores"
  pairs=()
  for set in "${sets[@]}"; do
    pairs+=("$data/$set" "$ctc/decode_$set" "$data/$set" "$transducer/decode_$set")
  done
  score.sh --cmd "$cmd" --options "$scoring" --log "$exp/log" "${pairs[@]}" >&2
  print_results.py --title "$title" "ctc=$ctc" "predictor=$predictor" "transducer=$transducer"
fi

# [G12] Figures 2 and 3, [G13] Figure 3, confusions and learning curves.
if runs 9; then
  begin 9 "pictures"
  mkdir -p "$exp/pictures"
  # draw NAME INPUTS COMMAND …: a step whose COMMAND ends with the picture that it writes
  draw() { step "picture_$1" "$2" "$exp/pictures/$1.png" "${@:3}" "$exp/pictures/$1.png"; }
  last=${sets[-1]}
  if [ -z "$utt" ]; then read -r utt _ < "$data/$last/text"; fi
  said=$data/$last/feats.scp,$data/$last/text
  options=(--text="ark:$data/$last/text")
  if [ "$by_speaker" = true ]; then
    options+=(--cmvn="scp:$data/$last/cmvn.scp" --utt2spk="ark:$data/$last/utt2spk")
  fi
  draw posteriors_ctc "$ctc/final.safetensors,$said" \
    plot_posteriors.py "${options[@]}" "$ctc" "scp:$data/$last/feats.scp" "$utt"
  draw sensitivity_ctc "$ctc/final.safetensors,$said" \
    plot_sensitivity.py "${options[@]}" "$ctc" "scp:$data/$last/feats.scp" "$utt"
  draw posteriors_transducer "$transducer/final.safetensors,$said" \
    plot_posteriors.py "${options[@]}" "$transducer" "scp:$data/$last/feats.scp" "$utt"
  draw sensitivity_transducer "$transducer/final.safetensors,$said" \
    plot_sensitivity.py "${options[@]}" "$transducer" "scp:$data/$last/feats.scp" "$utt"
  draw lattice "$transducer/final.safetensors,$said" \
    plot_lattice.py "${options[@]}" "$transducer" "scp:$data/$last/feats.scp" "$utt"
  draw confusions_ctc "$ctc/decode_$last/scoring/alignments" \
    plot_confusions.py --title="ctc, $last" "$ctc/decode_$last/scoring/alignments"
  draw confusions_transducer "$transducer/decode_$last/scoring/alignments" \
    plot_confusions.py --title="transducer, $last" "$transducer/decode_$last/scoring/alignments"
  draw training "$ctc/metrics.jsonl,$predictor/metrics.jsonl,$transducer/metrics.jsonl" \
    plot_training.py "$ctc" "$predictor" "$transducer"
fi

if runs 10; then
  begin 10 "report"
  scores=
  for set in "${sets[@]}"; do
    scores+=$ctc/decode_$set/scoring/score.json,$transducer/decode_$set/scoring/score.json,
  done
  step report "$scores" "$exp/report.html" \
    make_report.py --title="$title" "$ctc" "$transducer" --output="$exp/report.html"
  echo "LOG (run.sh) open $exp/report.html" >&2
fi

# [G12] and [G13] have no language model, so this stage is run only with --stop-stage 11: an n-gram
# of the transcriptions, over the phones or the words, whose weight and bonus are tuned on dev.
if runs 11; then
  begin 11 "shallow fusion with an n-gram of order $lm_order, tuned on dev"
  lm=$exp/lm/${lm_order}gram.arpa
  mkdir -p "$exp/lm"
  vocab=(--vocab="$data/tokens.txt")
  if [ "$units" != phone ]; then vocab=(--unk); fi
  step lm "$data/train/text,$data/tokens.txt" "$lm" \
    make_ngram_lm.py --order="$lm_order" "${vocab[@]}" "ark:$data/train/text" "$lm"
  for kind in ctc transducer; do
    dir=${!kind} pruned=
    if [ "$kind" = ctc ]; then pruned=$search; fi
    step "tune_$kind" "$dir/final.safetensors,$lm,$data/dev/feats.scp,$work/feats/dev" \
      "$dir/tune_dev/tune.tsv,$dir/tune_dev/best.conf" \
      tune_fusion.sh --nj "$nj" --cmd "$cmd" "${fused[@]}" \
      --options "--beam=$lm_beam --device=$device${pruned:+ $pruned}" \
      "decode_$kind.py" "$dir" "$lm" "$data/dev" "$dir/tune_dev"
    pairs=()
    for set in "${sets[@]}"; do
      step "fused_${kind}_$set" \
        "$dir/tune_dev/best.conf,$lm,$data/$set/feats.scp,$work/feats/$set" \
        "$dir/decode_fused_$set/hyp.txt" \
        decode.sh --nj "$nj" --cmd "$cmd" \
        --options "$(option_word "--config=$dir/tune_dev/best.conf") --beam=$lm_beam --device=$device${pruned:+ $pruned}" \
        "decode_$kind.py" "$dir" "$data/$set" "$dir/decode_fused_$set"
      pairs+=("$data/$set" "$dir/decode_fused_$set")
    done
    score.sh --cmd "$cmd" --options "$scoring" "${pairs[@]}" >&2
  done
fi
