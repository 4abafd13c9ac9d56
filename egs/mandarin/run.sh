#!/usr/bin/env bash
# CTC and RNN transducer on Mandarin: characters, or syllables with tones (pinyin).
#
#   ./run.sh                                  on the demo corpus, which the first run makes; minutes
#   ./run.sh --corpus /path/to/folder         on a folder of recordings, see local/prepare_data.py
#   ./run.sh --corpus DIR --units pinyin      the same in pinyin
#   ./run.sh --corpus DIR --eval-corpus DIR2  also search and score another folder
#
# --stage N --stop-stage N    first and last stage to run
# --corpus DIR                sentences.tsv and sentences/, words.tsv and words/; default: demo
# --eval-corpus DIR           a second folder, of which everything is only recognised
# --units char|pinyin         what the networks put out
# --work DIR                  folder of UNITS/data, UNITS/feats, UNITS/exp and the demo corpus
# --nj N                      number of jobs of features and search
# --cmd, --train-cmd PROGRAM  what runs the jobs, and the trainings: see cmd.sh
# --train-launch PROGRAM      what starts the processes of a training: see cmd.sh
# --device cpu|cuda|auto      where trainings and searches compute
# --model FILE.toml           architecture of the networks
# --regime DIR                folder of the options of the trainings
# --beam N                    beam: number of hypotheses kept
# --utt UTTERANCE             which utterance of the last set is drawn
# --allow-partial true        leave out items without a recording
# --config FILE               any of these, a line of name=value each
#
# A step is skipped if its command, its inputs and its outputs have not changed since it was run.
set -euo pipefail
HERE=$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

stage=0
stop_stage=10
corpus=
eval_corpus=
units=char
work=                 # default: demo; with --corpus the recipe's own folder
nj=2
cmd=                  # default: as cmd.sh says
train_cmd=            # default: as cmd.sh says; e.g. "slurm.py --gpu 1"
train_launch=         # default: as cmd.sh says; e.g. srun
device=auto
allow_partial=false
model=                # default: conf/demo.toml; with --corpus conf/model.toml
regime=               # default: conf/demo; with --corpus conf/modern
beam=10
utt=                  # default: the first of the last set
lm_order=5            # order of the n-gram of stage 11; 5 as in Deep Speech 2
demo_size=full        # size of the demo corpus, full or smoke
. "$HERE/../../utils/parse_options.sh"
. "$HERE/../../utils/recipe.sh"

case $units in
  char) name=CER kind=chars rule=--cer ;;
  pinyin) name=TSER kind=phones rule= ;; # tonal syllable error rate
  *) _usage_error "--units is char or pinyin, not '$units'" ;;
esac
eval_corpus=$(_as_meant "$eval_corpus")
if [ -n "$eval_corpus" ] && [ ! -d "$eval_corpus" ]; then
  echo "ERROR (run.sh) --eval-corpus: no folder $eval_corpus; give where it is" >&2
  exit 1
fi
if [[ $corpus,$eval_corpus == *,*,* ]]; then
  _usage_error "--corpus, --eval-corpus: a folder with a comma; rename it"
fi
partial=()
if [ "$allow_partial" = true ]; then partial=(--allow-partial); fi
if [ -n "$corpus" ]; then
  demo=false work=${work:-.} model=${model:-conf/model.toml} regime=${regime:-conf/modern}
  title="Mandarin, ${units}s: one speaker a part"
else
  demo=true work=${work:-demo} model=${model:-conf/demo.toml} regime=${regime:-conf/demo}
  title="Mandarin demo corpus, ${units}s: synthetic speech, says nothing about real speech"
  corpus=$work/corpus/$demo_size
fi
data=$work/$units/data feats=$work/$units/feats exp=$work/$units/exp
mkdir -p "$data" "$exp/log"

# The directories of the trained networks.
ctc=$exp/ctc predictor=$exp/predictor transducer=$exp/transducer

if runs 0 && [ "$demo" = true ]; then
  begin 0 "demo corpus: 56 synthetic voices"
  job_words make_demo_corpus.py --size="$demo_size" --jobs="$nj" "$corpus"
  # shellcheck disable=SC2086  # $cmd may be a program and its options
  SHOW_OUTPUT=true $cmd --num-threads "$nj" "$exp/log/demo_corpus.log" "${words[@]}"
fi

if runs 1; then
  begin 1 "data directories"
  prepared=$(printf '%s,' "$data"/{train,dev}/text "$data"/{train,dev}/wav.scp)
  step data "$corpus" "$prepared" \
    prepare_data.py --units="$units" "${partial[@]}" "$corpus" "$data"
  if [ -n "$eval_corpus" ]; then
    step data_eval "$eval_corpus" "" \
      prepare_data.py --units="$units" --only=eval "${partial[@]}" "$eval_corpus" "$data"
  fi
fi
sets=(dev)
for part in sentences words; do
  if [ -d "$data/test_$part" ]; then sets+=("test_$part"); fi
  if [ -n "$eval_corpus" ] && [ -d "$data/eval_$part" ]; then sets+=("eval_$part"); fi
done

# Recordings of any rate and format, resampled to 16 kHz. Tones need fine bands below 400 Hz.
if runs 2; then
  begin 2 "features: 80 mel channels and energy, at 16 kHz"
  for set in train "${sets[@]}"; do
    step "feats_$set" "$data/$set/wav.scp,conf/fbank.conf" \
      "$data/$set/feats.scp,$data/$set/utt2num_frames,$data/$set/conf,$feats/$set" \
      make_feats.sh --nj "$nj" --cmd "$cmd" --conf conf/fbank.conf --options "--resample=true" \
      "$data/$set" "$feats/$set"
  done
  whole=$(CDPATH='' cd "$feats" && pwd) # cmvn.scp names the archive by its whole path
  for set in train "${sets[@]}"; do
    heavy "cmvn_$set" "$data/$set/feats.scp,$data/$set/spk2utt,$feats/$set" \
      "$data/$set/cmvn.scp,$whole/cmvn_$set.ark" \
      compute_cmvn_stats.py --spk2utt="ark:$data/$set/spk2utt" "scp:$data/$set/feats.scp" \
      "ark,scp:$whole/cmvn_$set.ark,$data/$set/cmvn.scp"
  done
fi

# <unk> stands for what dev has and the training set lacks; the search never puts it out.
if runs 3; then
  begin 3 "tokens: the blank and the ${units}s of the training set"
  step tokens "$data/train/text" "$data/tokens.txt" \
    train_tokenizer.py --kind="$kind" --unk "ark:$data/train/text" "$data/tokens.txt"
fi

# An encoder, a predictor, then both together, where only the output network starts from random
# weights: [G13] section 3.
text=$model,$data/tokens.txt,$data/train/text,$data/dev/text
speech=$text,$data/train/feats.scp,$data/dev/feats.scp,$feats/train,$feats/dev
speech=$speech,$data/train/cmvn.scp,$data/dev/cmvn.scp

if runs 4; then
  begin 4 "CTC network"
  training ctc "$speech,$regime/train_ctc.conf" "$ctc/final.safetensors" \
    train_ctc.py --config="$regime/train_ctc.conf" --device="$device" \
    "$model" "$data/tokens.txt" "$data/train" "$data/dev" "$ctc"
fi

if runs 5; then
  begin 5 "prediction network, on the transcriptions"
  training predictor "$text,$regime/train_predictor.conf" "$predictor/final.safetensors" \
    train_predictor.py --config="$regime/train_predictor.conf" --device="$device" \
    "$model" "$data/tokens.txt" "$data/train" "$data/dev" "$predictor"
fi

if runs 6; then
  begin 6 "transducer, from both"
  both=$ctc/final.safetensors,$predictor/final.safetensors
  training transducer "$speech,$regime/train_transducer.conf,$both" \
    "$transducer/final.safetensors" \
    train_transducer.py --config="$regime/train_transducer.conf" --device="$device" \
    --init-ctc="$ctc" --init-predictor="$predictor" \
    "$model" "$data/tokens.txt" "$data/train" "$data/dev" "$transducer"
fi

if runs 7; then
  begin 7 "search, beam $beam"
  for set in "${sets[@]}"; do
    step "decode_ctc_$set" "$ctc/final.safetensors,$data/$set/feats.scp,$feats/$set" \
      "$ctc/decode_$set/hyp.txt,$ctc/decode_$set/nbest" \
      decode.sh --nj "$nj" --cmd "$cmd" --options "--beam=$beam --device=$device" \
      decode_ctc.py "$ctc" "$data/$set" "$ctc/decode_$set"
    step "decode_transducer_$set" \
      "$transducer/final.safetensors,$data/$set/feats.scp,$feats/$set" \
      "$transducer/decode_$set/hyp.txt,$transducer/decode_$set/nbest" \
      decode.sh --nj "$nj" --cmd "$cmd" --options "--beam=$beam --device=$device" \
      decode_transducer.py "$transducer" "$data/$set" "$transducer/decode_$set"
  done
fi

# Characters are aligned without spaces. What never occurred in training is counted apart.
if runs 8; then
  begin 8 "scores"
  pairs=() dirs=()
  for set in "${sets[@]}"; do
    pairs+=("$data/$set" "$ctc/decode_$set" "$data/$set" "$transducer/decode_$set")
    dirs+=("$ctc/decode_$set" "$transducer/decode_$set")
  done
  score.sh --cmd "$cmd" --options "--name=$name $rule" --log "$exp/log" "${pairs[@]}" >&2
  print_results.py --title "$title" "ctc=$ctc" "predictor=$predictor" "transducer=$transducer"
  count_unseen.py --units="$units" "$data/train/text" "${dirs[@]}"
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
  options=(--text="ark:$data/$last/text" --cmvn="scp:$data/$last/cmvn.scp"
    --utt2spk="ark:$data/$last/utt2spk")
  for what in posteriors sensitivity; do
    draw "${what}_ctc" "$ctc/final.safetensors,$said" \
      "plot_$what.py" "${options[@]}" "$ctc" "scp:$data/$last/feats.scp" "$utt"
    draw "${what}_transducer" "$transducer/final.safetensors,$said" \
      "plot_$what.py" "${options[@]}" "$transducer" "scp:$data/$last/feats.scp" "$utt"
  done
  draw lattice "$transducer/final.safetensors,$said" \
    plot_lattice.py "${options[@]}" "$transducer" "scp:$data/$last/feats.scp" "$utt"
  for network in ctc transducer; do
    alignments=${!network}/decode_$last/scoring/alignments
    draw "confusions_$network" "$alignments" \
      plot_confusions.py --title="$network, $last" "$alignments"
  done
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

# Only with --stop-stage 11: an n-gram of the transcriptions of the training set, over the tokens;
# its weight and the insertion bonus are tuned on dev.
if runs 11; then
  begin 11 "shallow fusion with an n-gram of order $lm_order, tuned on dev"
  lm=$exp/lm/${lm_order}gram.arpa
  mkdir -p "$exp/lm"
  step lm "$data/train/text,$data/tokens.txt" "$lm" \
    make_ngram_lm.py --order="$lm_order" --vocab="$data/tokens.txt" "ark:$data/train/text" "$lm"
  for network in ctc transducer; do
    dir=${!network}
    step "tune_$network" "$dir/final.safetensors,$lm,$data/dev/feats.scp,$feats/dev" \
      "$dir/tune_dev/tune.tsv,$dir/tune_dev/best.conf" \
      tune_fusion.sh --nj "$nj" --cmd "$cmd" --name "$name" --score-options "$rule" \
      --options "--beam=$beam --device=$device" \
      "decode_$network.py" "$dir" "$lm" "$data/dev" "$dir/tune_dev"
    pairs=() dirs=()
    for set in "${sets[@]}"; do
      step "fused_${network}_$set" \
        "$dir/tune_dev/best.conf,$lm,$data/$set/feats.scp,$feats/$set" \
        "$dir/decode_fused_$set/hyp.txt" \
        decode.sh --nj "$nj" --cmd "$cmd" \
        --options "$(option_word "--config=$dir/tune_dev/best.conf") --beam=$beam --device=$device" \
        "decode_$network.py" "$dir" "$data/$set" "$dir/decode_fused_$set"
      pairs+=("$data/$set" "$dir/decode_fused_$set")
      dirs+=("$dir/decode_fused_$set")
    done
    score.sh --cmd "$cmd" --options "--name=$name $rule" "${pairs[@]}" >&2
    count_unseen.py --units="$units" "$data/train/text" "${dirs[@]}"
  done
fi
