#!/usr/bin/env bash
# A frame-wise LSTMP on the alignments of the recipe's CTC network: H. Sak et al., 2014.
#
#   ./local/run_framewise.sh              after stages 1 to 4 of ./run.sh
#
# --work DIR                  folder of data/, feats/ and exp/
# --device cpu|cuda|auto      where the training and the search compute
# --model FILE.toml           architecture of the network
# --regime DIR                folder of the options of the training
# --ctc DIR                   the CTC network that aligns; default: WORK/exp/ctc
# --lm-weight X               weight of the bigram in the search
# --config FILE               any of these, a line of name=value each
set -euo pipefail
HERE=$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

work=.
device=auto
model=$HERE/conf/lstmp_small.toml
regime=$HERE/conf/modern
ctc=
lm_weight=1
. "$HERE/../../utils/parse_options.sh"
. "$HERE/path.sh"

data=$work/data exp=$work/exp
ctc=${ctc:-$exp/ctc}
for set in train dev; do
  align_tokens.py --device="$device" "$ctc" "scp:$data/$set/feats.scp" "ark:$data/$set/text" \
    "ark,scp:$data/$set/ali.ark,$data/$set/ali.scp"
done
train_framewise.py --config="$regime/train_framewise.conf" --device="$device" "$model" \
  "$data/tokens.txt" "$data/train" "$data/dev" "$exp/framewise"

mkdir -p "$exp/framewise/decode_dev"
make_ngram_lm.py --order=2 "$data/train/text" "$exp/framewise/bigram.arpa"
decode_framewise.py --device="$device" --lm="$exp/framewise/bigram.arpa" --lm-weight="$lm_weight" \
  "$exp/framewise" "scp:$data/dev/feats.scp" "ark,t:$exp/framewise/decode_dev/hyp.txt"
compute_wer.py --name=PER "ark:$data/dev/text" "ark:$exp/framewise/decode_dev/hyp.txt"
