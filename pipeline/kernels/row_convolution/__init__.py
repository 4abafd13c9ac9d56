"""The row convolution of Deep Speech 2."""
