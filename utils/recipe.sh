# Sourced by run.sh after parse_options.sh: what the recipes share. Expects $HERE, the recipe's
# folder, and the options; goes there, and sets up the environment and $cmd.

# A path as the user meant it: relative to where the recipe was called, or to the recipe itself.
as_meant() {
  if [ -z "$1" ] || [ "${1#/}" != "$1" ] || { [ ! -e "$caller/$1" ] && [ -e "$HERE/$1" ]; }; then
    echo "$1"
  else
    echo "$caller/$1"
  fi
}
_usage_error() {
  echo "ERROR ($(basename "$0")) $1" >&2
  exit 2
}
if [ $# -ne 0 ]; then _usage_error "unexpected '$1'; options only, see --help"; fi
for _number in stage stop_stage nj; do
  if ! [[ ${!_number} =~ ^[0-9]+$ ]]; then
    _usage_error "--${_number//_/-} takes a whole number, not '${!_number}'"
  fi
done
if [ "$nj" -eq 0 ]; then _usage_error "--nj must be 1 or more"; fi
if [ "$stage" -gt "$stop_stage" ]; then
  _usage_error "--stage $stage is after --stop-stage $stop_stage: nothing to do"
fi
caller=$PWD
for _path in corpus model regime; do printf -v "$_path" %s "$(as_meant "${!_path}")"; done
if [ -n "$work" ] && [ "$work" != . ] && [ "${work#/}" = "$work" ]; then work=$caller/$work; fi
if [ -n "$corpus" ] && [ ! -d "$corpus" ]; then
  echo "ERROR ($(basename "$0")) --corpus: no folder $corpus; give where the corpus is" >&2
  exit 1
fi
cd "$HERE"
if [ -n "$model" ] && [ ! -f "$model" ]; then _usage_error "--model: no file $model"; fi
if [ -n "$regime" ] && [ ! -d "$regime" ]; then _usage_error "--regime: no folder $regime"; fi
. ./path.sh
. ./cmd.sh
train_cmd=${train_cmd:-$cmd} train_launch=${train_launch:-}

# True if stage $1 is to run.
runs() { [ "$stage" -le "$1" ] && [ "$stop_stage" -ge "$1" ]; }

# begin STAGE TEXT: say what starts.
begin() { echo "LOG ($(basename "$0")) stage $1: $2" >&2; }

# step NAME INPUTS OUTPUTS COMMAND …: run COMMAND unless it is done; INPUTS and OUTPUTS are
# comma-separated paths.
step() { once.py --inputs "$2" --outputs "$3" "$exp/.done/$1" "${@:4}"; }

# heavy NAME INPUTS OUTPUTS COMMAND …: a step that runs as one job of $cmd, with its log in $exp/log,
# shown as it grows.
heavy() { as_job "$cmd" "" "$@"; }

# training NAME INPUTS OUTPUTS COMMAND …: the same by $train_cmd, its processes by $train_launch.
training() { as_job "$train_cmd" "$train_launch" "$@"; }

as_job() {
  mkdir -p "$exp/log"
  SHOW_OUTPUT=true once.py --inputs "$4" --outputs "$5" --via "$1 $(printf %q "$exp/log/$3.log") $2" \
    "$exp/.done/$3" "${@:6}"
}

# True if $regime normalises features by speaker.
by_speaker() { grep -qs '^--cmvn=speaker' "$regime"/train_*.conf; }

# make_features SET …: features of $data/SET by conf/fbank.conf and conf/delta.conf, and the
# statistics of $data/train.
make_features() {
  local set
  for set in "$@"; do
    step "feats_$set" "$data/$set/wav.scp,conf/fbank.conf,conf/delta.conf" \
      "$data/$set/feats.scp,$data/$set/utt2num_frames,$data/$set/conf,$work/feats/$set" \
      make_feats.sh --nj "$nj" --cmd "$cmd" --conf conf/fbank.conf --delta-conf conf/delta.conf \
      "$data/$set" "$work/feats/$set"
  done
  if by_speaker; then
    local feats
    feats=$(cd "$work/feats" && pwd)
    for set in "$@"; do
      heavy "cmvn_$set" "$data/$set/feats.scp,$data/$set/spk2utt,$work/feats/$set" \
        "$data/$set/cmvn.scp,$feats/cmvn_$set.ark" \
        compute_cmvn_stats.py --spk2utt="ark:$data/$set/spk2utt" "scp:$data/$set/feats.scp" \
        "ark,scp:$feats/cmvn_$set.ark,$data/$set/cmvn.scp"
    done
  else
    heavy cmvn "$data/train/feats.scp,$work/feats/train" "$data/train/cmvn.ark" \
      compute_cmvn_stats.py "scp:$data/train/feats.scp" "$data/train/cmvn.ark"
  fi
}

# trained KIND: the model directory of its last phase.
trained() { if [ -f "$regime/train_$1_noise.conf" ]; then echo "$exp/$1_noise"; else echo "$exp/$1"; fi; }

# train KIND [--init-…=DIR …]: one network by $regime/train_KIND.conf, from those in DIRs, and,
# where there is a train_KIND_noise.conf, once more from there with weight noise.
train() {
  local kind=$1 inputs=$model,$data/tokens.txt,$data/train/text,$data/dev/text
  local data_args=("$model" "$data/tokens.txt" "$data/train" "$data/dev")
  local shared=(--device="$device") option from=
  if [ "$kind" != predictor ]; then
    inputs+=,$data/train/feats.scp,$data/dev/feats.scp
    if by_speaker; then
      inputs+=,$data/train/cmvn.scp,$data/dev/cmvn.scp
    else
      inputs+=,$data/train/cmvn.ark
    fi
    inputs+=,$work/feats/train,$work/feats/dev
    if [ -n "$map" ]; then shared+=(--phone-map="$map"); fi
  fi
  local conf=$regime/train_$kind.conf
  for option in "${@:2}"; do from+=,${option#*=}/final.safetensors; done
  training "$kind" "$inputs,$conf$from" "$exp/$kind/final.safetensors" \
    "train_$kind.py" --config="$conf" "${shared[@]}" "${@:2}" "${data_args[@]}" "$exp/$kind"
  conf=$regime/train_${kind}_noise.conf
  if [ -f "$conf" ]; then
    training "${kind}_noise" "$inputs,$conf,$exp/$kind/final.safetensors" \
      "$exp/${kind}_noise/final.safetensors" "train_$kind.py" --config="$conf" "${shared[@]}" \
      --init="$exp/$kind" "${data_args[@]}" "$exp/${kind}_noise"
  fi
}

# search SET …: decode SETs with both models.
search() {
  local kind set dir
  for kind in ctc transducer; do
    for set in "$@"; do
      dir=$(trained $kind)
      step "decode_${kind}_$set" "$dir/final.safetensors,$data/$set/feats.scp,$work/feats/$set" \
        "$dir/decode_$set/hyp.txt,$dir/decode_$set/nbest" \
        decode.sh --nj "$nj" --cmd "$cmd" --options "--beam=$beam --device=$device" \
        "decode_$kind.py" "$dir" "$data/$set" "$dir/decode_$set"
    done
  done
}

# fuse SET …: an n-gram of the training transcriptions, with the weight and the bonus that are best
# on dev; SETs are decoded and scored with them, once with each model.
fuse() {
  local kind set dir lm=$exp/lm/${lm_order}gram.arpa
  mkdir -p "$exp/lm"
  step lm "$data/train/text,$data/tokens.txt" "$lm" \
    make_ngram_lm.py --order="$lm_order" --vocab="$data/tokens.txt" "ark:$data/train/text" "$lm"
  for kind in ctc transducer; do
    dir=$(trained $kind)
    step "tune_$kind" "$dir/final.safetensors,$lm,$data/dev/feats.scp,$work/feats/dev" \
      "$dir/tune_dev/tune.tsv,$dir/tune_dev/best.conf" \
      tune_fusion.sh --nj "$nj" --cmd "$cmd" --map "$map" \
      --options "--beam=$beam --device=$device" "decode_$kind.py" "$dir" "$lm" "$data/dev" \
      "$dir/tune_dev"
    for set in "$@"; do
      step "fused_${kind}_$set" "$dir/tune_dev/best.conf,$lm,$data/$set/feats.scp,$work/feats/$set" \
        "$dir/decode_fused_$set/hyp.txt" \
        decode.sh --nj "$nj" --cmd "$cmd" \
        --options "--config=$dir/tune_dev/best.conf --beam=$beam --device=$device" \
        "decode_$kind.py" "$dir" "$data/$set" "$dir/decode_fused_$set"
      score.py --map "$map" "$data/$set" "$dir/decode_fused_$set" >&2
    done
  done
}

# score SET …: error rates of both models, then the table. $title and ${paper[@]} go on it.
score() {
  local kind set pairs=()
  for kind in ctc transducer; do
    for set in "$@"; do pairs+=("$data/$set" "$(trained $kind)/decode_$set"); done
  done
  score.sh --cmd "$cmd" --options "${map:+--map=$map}" --log "$exp/log" "${pairs[@]}" >&2
  print_results.py --title "$title" "${paper[@]}" \
    "ctc=$(trained ctc)" "predictor=$(trained predictor)" "transducer=$(trained transducer)"
}

# draw SET: the papers' figures of $utt, an utterance of SET (its first if empty), what both models
# confuse, and their learning curves, into $exp/pictures.
draw() {
  local set=$1 name=${utt:-} pictures=$exp/pictures kind dir subject
  local table=$data/$set options=(--text="ark:$data/$set/text")
  if [ -z "$name" ]; then read -r name _ < "$table/text"; fi
  if by_speaker; then options+=(--cmvn="scp:$table/cmvn.scp" --utt2spk="ark:$table/utt2spk"); fi
  local times=()
  if [ -f "$table/phones.ctm" ]; then times=(--ctm="$table/phones.ctm"); fi
  mkdir -p "$pictures"
  for kind in ctc transducer; do
    dir=$(trained $kind)
    subject=("${options[@]}" "$dir" "scp:$table/feats.scp" "$name")
    local inputs=$dir/final.safetensors,$table/feats.scp,$table/text
    draw_one "posteriors_$kind" "$inputs" plot_posteriors.py "${times[@]}" "${subject[@]}"
    if [ $kind = ctc ]; then
      draw_one sensitivity_ctc "$inputs" plot_sensitivity.py "${times[@]}" "${subject[@]}"
    else
      draw_one sensitivity_transducer "$inputs" plot_sensitivity.py "${subject[@]}"
      draw_one lattice "$inputs" plot_lattice.py "${subject[@]}"
    fi
    local alignments=$dir/decode_$set/scoring/alignments
    draw_one "confusions_$kind" "$alignments" plot_confusions.py --title="$kind, $set" "$alignments"
  done
  local runs=("$(trained ctc)" "$(trained predictor)" "$(trained transducer)")
  draw_one training "$(printf '%s/metrics.jsonl,' "${runs[@]}")" plot_training.py "${runs[@]}"
}

# draw_one NAME INPUTS COMMAND …: $pictures/NAME.png, unless it is done.
draw_one() {
  step "picture_$1" "${2%,}" "$pictures/$1.png" "${@:3}" "$pictures/$1.png"
}

# report SET …: everything on one page, $exp/report.html.
report() {
  local kind set dir inputs= models=()
  for kind in ctc transducer; do
    dir=$(trained $kind)
    models+=("$dir")
    for set in "$@"; do inputs+=$dir/decode_$set/scoring/score.json,; done
  done
  step report "${inputs%,}" "$exp/report.html" \
    make_report.py --title="$title" "${models[@]}" --output="$exp/report.html"
  echo "LOG ($(basename "$0")) open $exp/report.html" >&2
}
