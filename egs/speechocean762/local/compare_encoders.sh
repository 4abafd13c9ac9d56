#!/usr/bin/env bash
# Train every encoder, with CTC and as a transducer's, over every kind of units, by one regime, and
# print one table for each kind: weights, error rates, seconds an epoch, speed of the search.
#
#   local/compare_encoders.sh --corpus /path/to/speechocean762
#   local/compare_encoders.sh --corpus DIR --encoders "lstm lstmp" --units phone
#
# --corpus DIR                speechocean762
# --encoders "NAME …"         files of conf/encoders; default: all
# --units "UNITS …"           phone, char, bigram, bpe, unigram; default: phone, char and bpe
# --work DIR                  folder of all that is made; compare
# --beam N                    beam: number of hypotheses kept
# --nj N                      number of jobs of features and search
# --cmd, --train-cmd PROGRAM  what runs the jobs, and the trainings: see cmd.sh
# --train-launch PROGRAM      what starts the processes of a training: see cmd.sh
# --device cpu|cuda|auto      where trainings and searches compute
# --allow-partial true        accept a corpus that is not whole
# --config FILE               any of these, a line of name=value each
#
# What is done is not done again, so encoders and units can be added one by one.
set -euo pipefail
HERE=$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

corpus=
encoders=
units="phone char bpe"
work=compare
beam=10
nj=2
cmd=                  # default: as cmd.sh says
train_cmd=            # default: as cmd.sh says; e.g. "slurm.py --gpu 1"
train_launch=         # default: as cmd.sh says; e.g. srun
device=auto
allow_partial=false
. "$HERE/../../utils/parse_options.sh"
if [ -z "$corpus" ]; then
  echo "ERROR (compare_encoders.sh) give the corpus: --corpus /path/to/speechocean762" >&2
  exit 2
fi
stage=1 stop_stage=11 model= regime=  # recipe.sh asks for them
. "$HERE/../../utils/recipe.sh"
known=$(basename -s .toml -a conf/encoders/*.toml | xargs)
encoders=${encoders:-$known}
for name in $encoders; do
  if [ ! -f "conf/encoders/$name.toml" ]; then
    _usage_error "--encoders: no conf/encoders/$name.toml; there are $known"
  fi
done
for unit in $units; do # before hours of training
  case $unit in
    phone | char | bigram | bpe | unigram) ;;
    *) _usage_error "--units: '$unit' is none of phone, char, bigram, bpe and unigram" ;;
  esac
done

shared=(--corpus "$corpus" --beam "$beam" --nj "$nj" --cmd "$cmd"
  --train-cmd "$train_cmd" --train-launch "$train_launch" --device "$device"
  --allow-partial "$allow_partial")
rows=()
for unit in $units; do
  for name in $encoders; do
    features=fbank
    if grep -q '^input_dim = 161' "conf/encoders/$name.toml"; then features=spectrogram; fi
    regime=conf/compare
    if [ -d "conf/compare/$name" ]; then regime=conf/compare/$name; fi
    to=$work/$features part=_$unit
    if [ "$unit" = phone ]; then part=; fi
    one=(--units "$unit" --features "$features" --model "conf/encoders/$name.toml"
      --regime "$regime" --work "$to" --tag "$name" "${shared[@]}")
    ./run.sh "${one[@]}" --stop-stage 8 >&2
    if [ "$unit" != phone ]; then ./run.sh "${one[@]}" --stage 11 --stop-stage 11 >&2; fi
    rows+=("$unit:$name=$to/exp${part}_$name")
  done
done
local/print_comparison.py "${rows[@]}"
