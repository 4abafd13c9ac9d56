"""Recurrent layers: peephole LSTM and tanh."""
