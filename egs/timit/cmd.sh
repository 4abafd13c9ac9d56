# The only place that knows where jobs run. utils/run.py runs them on this machine; Kaldi's
# run.pl, queue.pl or slurm.pl take the same arguments and can be named here instead.
export cmd=${cmd:-run.py}
