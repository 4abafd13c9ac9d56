# The only place that knows where jobs run. utils/run.py runs them on this machine, utils/slurm.py on
# a Slurm cluster; Kaldi's run.pl, slurm.pl or queue.pl take the same arguments and can be named here
# instead. What differs between jobs, such as memory, is an option of theirs:
#
#   cmd="slurm.py --mem 2G --time 2:00:00"
#   train_cmd="slurm.py --mem 8G --time 24:00:00 --gpu 1"
#
# --cmd and --train-cmd of run.sh come before what stands here.
export cmd=${cmd:-run.py}              # features, decoding, scoring
export train_cmd=${train_cmd:-$cmd}    # a training, one job
