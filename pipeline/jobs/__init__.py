"""Jobs on this machine and on a cluster, by Kaldi's command line."""
