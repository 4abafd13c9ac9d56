#!/usr/bin/env bash
# make_feats.sh: compute the features of a data directory, in parallel jobs.
#
# Usage: make_feats.sh [options] DATA_DIR FEATS_DIR
#
# e.g.: make_feats.sh --nj 4 --conf conf/fbank.conf --delta-conf conf/delta.conf data/train \
#         feats/train
#
# Writes FEATS_DIR/feats_NAME.JOB.{ark,scp}, then DATA_DIR/{feats.scp,utt2num_frames,frame_shift}
# and DATA_DIR/conf, which says how the features were made. The name of the --conf file chooses the
# program: fbank.conf, mfcc.conf or spectrogram.conf. Without --delta-conf no deltas are added. When
# it is run again after a failure, only the jobs that are missing are run. A recording that cannot
# be read fails its job; --skip-bad true leaves such recordings out (run fix_data_dir.py afterwards).
set -euo pipefail

nj=2             # number of jobs; at most one for each utterance
cmd=run.py       # program that runs them
conf=conf/fbank.conf
delta_conf=
skip_bad=false
options=         # more options of the program, e.g. "--allow-pipes=true --channel=0"
. "$(dirname "$0")/parse_options.sh"
. "$(dirname "$0")/files.sh"

if [ $# -ne 2 ]; then
  sed -n '2,/^set/p' "$0" | grep '^#' >&2
  exit 2
fi
data=$1 feats=$2
name=$(basename "$data")
fail() {
  echo "ERROR ($(basename "$0")) $1" >&2
  exit 1
}
for file in "$conf" ${delta_conf:+"$delta_conf"} "$data/wav.scp" "$data/spk2utt"; do
  if [ ! -s "$file" ]; then fail "$file: missing or empty"; fi
done
utterances=$(wc -l < "$data/utt2spk")
if [ "$nj" -gt "$utterances" ]; then nj=$utterances; fi
case $(basename "$conf") in
  fbank.conf) program=compute_fbank_feats.py ;;
  mfcc.conf) program=compute_mfcc_feats.py ;;
  spectrogram.conf) program=compute_spectrogram_feats.py ;;
  *) echo "ERROR ($0) --conf must be called fbank.conf, mfcc.conf or spectrogram.conf, not $conf" >&2
     exit 2 ;;
esac

lock_folder "$feats"
lock_folder "$data"
mkdir -p "$feats/log"
feats=$(cd "$feats" && pwd)
split_data.py --per-utt "$data" "$nj"
split=$data/split${nj}utt
made=$feats/.feats_$name.JOB # the name until all jobs are done
permissive=
if [ "$skip_bad" = true ]; then permissive=,p; fi
source=("scp$permissive:$split/JOB/wav.scp")
inputs=scp:$split/JOB/wav.scp,$conf${delta_conf:+,$delta_conf}
cut=()
if [ -e "$data/segments" ]; then
  cut=(extract_segments.py "${source[@]}" "$split/JOB/segments" ark:- '|')
  source=(ark:-)
  inputs+=,$split/JOB/segments
fi
# shellcheck disable=SC2206  # $options are several words
compute=("$program" --config="$conf" $options --write-num-frames="ark,t:$feats/log/frames_$name.JOB"
  "${source[@]}")
if [ -n "$delta_conf" ]; then
  compute+=(ark:- '|' add_deltas.py --config="$delta_conf" ark:-)
fi
line= # the command of a job, as one word for once.py
for word in "${cut[@]}" "${compute[@]}" "ark,scp:$made.ark,$made.scp"; do
  if [[ $word =~ ^[][A-Za-z0-9_./,:=@%+-]+$ ]] || [ "$word" = '|' ]; then
    line+=" $word"
  else
    line+=" $(printf %q "$word")"
  fi
done
# shellcheck disable=SC2086  # $cmd may be a program and its options
$cmd JOB=1:"$nj" "$feats/log/make_feats_$name.JOB.log" \
  once.py --inputs="$inputs" --outputs="$made.ark,$made.scp,$feats/log/frames_$name.JOB" \
  "$feats/log/.done_$name.JOB" bash -e -o pipefail -c "${line# }"

rm -f "$data/feats.scp" # without it a directory that is half old and half new does not look whole
for job in $(seq "$nj"); do
  mv "$feats/.feats_$name.$job.ark" "$feats/feats_$name.$job.ark"
  new=$(temporary "$feats/feats_$name.$job.scp")
  sed 's|/\.\(feats_[^/]*:[0-9]*\)$|/\1|' "$feats/.feats_$name.$job.scp" > "$new"
  publish "$new" "$feats/feats_$name.$job.scp"
  rm "$feats/.feats_$name.$job.scp"
done
made_conf=$(temporary "$data/conf")
rm "$made_conf"
mkdir "$made_conf"
cp "$conf" "$made_conf/"
if [ -n "$delta_conf" ]; then cp "$delta_conf" "$made_conf/delta.conf"; fi
shift_ms=$(sed -n 's/^ *--frame-shift=\([0-9.]*\).*/\1/p' "$conf")
new=$(temporary "$data/frame_shift")
awk -v ms="${shift_ms:-10}" 'BEGIN { print ms / 1000 }' > "$new"
publish "$new" "$data/frame_shift"
discard "$data/conf"
mv "$made_conf" "$data/conf"
for file in utt2num_frames feats.scp; do # feats.scp last: with it the directory is complete
  new=$(temporary "$data/$file")
  for job in $(seq "$nj"); do
    if [ $file = feats.scp ]; then cat "$feats/feats_$name.$job.scp"; else cat "$feats/log/frames_$name.$job"; fi
  done | LC_ALL=C sort > "$new"
  publish "$new" "$data/$file"
done
if [ "$skip_bad" = false ]; then validate_data_dir.py "$data" >&2; fi
