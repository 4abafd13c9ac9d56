# The only place that knows where jobs run. utils/run.py runs them on this machine, utils/slurm.py on
# a Slurm cluster; Kaldi's run.pl, slurm.pl or queue.pl take the same arguments and can be named here
# instead. What differs between jobs, such as memory, is an option of theirs:
#
#   cmd="slurm.py --mem 2G --time 2:00:00"
#   train_cmd="slurm.py --mem 8G --time 24:00:00 --gpu 1"
#
# Several processes for one training: 4 GPUs of one machine, or of two by srun.
#
#   train_cmd="slurm.py --gpu 4" train_launch="torchrun --standalone --nproc-per-node=4 --no-python"
#   train_cmd="slurm.py --gpu 4 --nodes 2 --tasks-per-node 4" train_launch=srun
#
# --cmd, --train-cmd and --train-launch of run.sh come before what stands here.
export cmd=${cmd:-run.py}              # features, decoding, scoring
export train_cmd=${train_cmd:-$cmd}    # a training, one job
export train_launch=${train_launch:-}  # what starts its processes; empty: one process
