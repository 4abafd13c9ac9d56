"""Running jobs on this machine or on a cluster, with Kaldi's command line."""
