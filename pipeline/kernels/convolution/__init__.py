"""Convolutions over frequency and time whose values do not depend on the batch."""
