"""Synthetic speech for the demo corpora of the recipes: voices, rooms and noise.

espeak-ng, under the GPL, is loaded only by programs that speak, each in a process of its own. No
other package of the library imports this one.
"""
