"""Data sets as plain arrays, each from an installed package or a generator: nothing is downloaded."""
