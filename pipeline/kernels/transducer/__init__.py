"""The RNN transducer: loss, joint network and loss, alignment."""
