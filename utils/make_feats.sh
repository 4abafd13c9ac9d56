#!/usr/bin/env bash
# make_feats.sh: compute the features of a data directory, in parallel jobs.
#
# Usage: make_feats.sh [options] DATA_DIR FEATS_DIR
#
# e.g.: make_feats.sh --nj 4 --conf conf/fbank.conf --delta-conf conf/delta.conf data/train \
#         feats/train
#
# Writes FEATS_DIR/feats_NAME.JOB.{ark,scp}, then DATA_DIR/{feats.scp,utt2num_frames,frame_shift}
# and DATA_DIR/conf, which says how the features were made, by --conf, --delta-conf and --options. The
# name of the --conf file chooses the program: fbank.conf, mfcc.conf or spectrogram.conf. Without
# --delta-conf no deltas are added. When it is run again after a failure, only the jobs that are
# missing are run. A recording that cannot be read fails its job; --skip-bad true leaves such
# recordings out (run fix_data_dir.py afterwards).
set -euo pipefail

nj=2             # number of jobs; at most one for each utterance
cmd=run.py       # program that runs them
conf=conf/fbank.conf
delta_conf=
skip_bad=false
options=         # more options of the program, e.g. "--low-freq=300 --allow-pipes=true --channel=0"
. "$(dirname "$0")/parse_options.sh"
. "$(dirname "$0")/job_words.sh"
. "$(dirname "$0")/files.sh"

if [ $# -ne 2 ]; then
  sed -n '2,/^set/p' "$0" | grep '^#' >&2
  exit 2
fi
data=$1 feats=$2
usable_paths data feats conf delta_conf
name=$(basename "$data")
fail() {
  echo "ERROR ($(basename "$0")) $1" >&2
  exit 1
}
for file in "$conf" ${delta_conf:+"$delta_conf"} "$data/wav.scp" "$data/spk2utt"; do
  if [ ! -s "$file" ]; then fail "$file: missing or empty"; fi
done
utterances=$(tr '\r' '\n' < "$data/utt2spk" | grep -c .)
if [ "$nj" -gt "$utterances" ]; then nj=$utterances; fi
case $(basename "$conf") in
  fbank.conf | mfcc.conf | spectrogram.conf) program=compute_$(basename "$conf" .conf)_feats.py ;;
  *) echo "ERROR ($0) --conf must be called fbank.conf, mfcc.conf or spectrogram.conf, not $conf" >&2
     exit 2 ;;
esac
case $feats in
  *,*) fail "$feats: a folder of features cannot have a comma in its name, which Kaldi's tables put \
between two files; rename it" ;;
esac

lock_folder "$feats"
lock_folder "$data"
mkdir -p "$feats/log"
feats=$(CDPATH='' cd "$feats" && pwd)
if [[ $feats == *[,\|]* ]]; then
  fail "$feats: a folder of features cannot have a comma or a | in its path; put it elsewhere"
fi
segmented=$(if [ -e "$data/segments" ]; then echo true; else echo false; fi)
digest=$(feats_options.py --segments="$segmented" --delta-conf="$delta_conf" --options="$options" \
  "$conf" "$feats/log/options_$name")
sorted=$feats/log/options_$name/$digest # the options, each for the program that takes it
split_data.py --per-utt "$data" "$nj"
split=$data/split${nj}utt
choose_job_name "$data" "$feats"
made=$feats/.feats_$name.$job # the name until all jobs are done
frames=$feats/log/frames_$name.$job
permissive= skip=()
if [ "$skip_bad" = true ]; then permissive=,p skip=(--allow-empty=true); fi
source=("scp$permissive:$split/$job/wav.scp")
inputs=(--input="scp:$split/$job/wav.scp" --input="$sorted/conf")
cut=()
mapfile -t -d '' words < "$sorted/compute.words"
if [ "$segmented" = true ]; then
  mapfile -t -d '' cut < "$sorted/cut.words"
  cut=(extract_segments.py "${cut[@]}" "${skip[@]}" "${source[@]}" "$split/$job/segments" ark:- '|')
  source=("ark$permissive:-")
  inputs+=(--input="$split/$job/segments")
fi
compute=("$program" --config="$sorted/conf/$(basename "$conf")" "${words[@]}" "${skip[@]}"
  --write-num-frames="ark,t:$frames" "${source[@]}")
if [ -n "$delta_conf" ]; then
  compute+=(ark:- '|' add_deltas.py --config="$sorted/conf/delta.conf" "${skip[@]}" ark:-)
fi
line= # the command of a job, as one word for once.py
for word in "${cut[@]}" "${compute[@]}" "ark,scp:$made.ark,$made.scp"; do
  if [[ $word =~ ^[][A-Za-z0-9_./,:=@%+-]+$ ]] || [ "$word" = '|' ]; then
    line+=" $word"
  else
    line+=" $(printf %q "$word")"
  fi
done
job_words once.py "${inputs[@]}" --output="$made.ark" --output="$made.scp" --output="$frames" \
  "$feats/log/.done_$name.$job" bash -e -o pipefail -c "${line# }"
# shellcheck disable=SC2086  # $cmd may be a program and its options
$cmd "$job=1:$nj" "$feats/log/make_feats_$name.$job.log" "${words[@]}"
if [ -z "$(for n in $(seq "$nj"); do head -c 1 "$feats/.feats_$name.$n.scp"; done)" ]; then
  fail "$data: none of its recordings could be read; see $feats/log/make_feats_$name.*.log"
fi

rm -f "$data/feats.scp" # without it a directory that is half old and half new does not look whole
for n in $(seq "$nj"); do
  mv "$feats/.feats_$name.$n.ark" "$feats/feats_$name.$n.ark"
  new=$(temporary "$feats/feats_$name.$n.scp")
  LC_ALL=C sed 's|/\.\(feats_[^/]*:[0-9]*\)$|/\1|' "$feats/.feats_$name.$n.scp" > "$new"
  publish "$new" "$feats/feats_$name.$n.scp"
  rm "$feats/.feats_$name.$n.scp"
done
for folder in "$feats/log/options_$name"/*; do # of earlier runs
  if [ "$folder" != "$sorted" ]; then rm -rf "$folder"; fi
done
made_conf=$(temporary "$data/conf")
rm "$made_conf"
cp -r "$sorted/conf" "$made_conf"
new=$(temporary "$data/frame_shift")
cat "$sorted/frame_shift" > "$new"
publish "$new" "$data/frame_shift"
discard "$data/conf"
mv "$made_conf" "$data/conf"
for file in utt2num_frames feats.scp; do # feats.scp last: with it the directory is complete
  new=$(temporary "$data/$file")
  for n in $(seq "$nj"); do
    if [ $file = feats.scp ]; then cat "$feats/feats_$name.$n.scp"; else cat "$feats/log/frames_$name.$n"; fi
  done | LC_ALL=C sort > "$new"
  publish "$new" "$data/$file"
done
if [ "$skip_bad" = false ]; then validate_data_dir.py "$data" >&2; fi
