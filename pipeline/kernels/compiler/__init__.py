"""How kernels for the CPU are compiled, and the arithmetic that they share."""
