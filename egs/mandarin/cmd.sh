# This is the only place that knows where jobs run. utils/run.py runs them on this machine,
# utils/slurm.py on a Slurm cluster. Kaldi's run.pl, slurm.pl and queue.pl take the same arguments
# and can be named here instead. What differs between jobs, such as memory, is an option of these
# programs:
#
#   cmd="slurm.py --mem 2G --time 2:00:00"
#   train_cmd="slurm.py --mem 8G --time 24:00:00 --gpu 1"
#
# One training may have several processes, here on 4 GPUs of one machine, or of two by srun:
#
#   train_cmd="slurm.py --gpu 4" train_launch="torchrun --standalone --nproc-per-node=4 --no-python"
#   train_cmd="slurm.py --gpu 4 --nodes 2 --tasks-per-node 4" train_launch=srun
#
# The options --cmd, --train-cmd and --train-launch of run.sh replace what is set here.
export cmd=${cmd:-run.py}              # runs the jobs of features, decoding and scoring
export train_cmd=${train_cmd:-$cmd}    # runs a training, which is one job
export train_launch=${train_launch:-}  # starts the processes of a training; empty: one process
