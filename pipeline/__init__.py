"""CTC and RNN-transducer phone recognition, Kaldi's way. Importing this imports nothing else."""
