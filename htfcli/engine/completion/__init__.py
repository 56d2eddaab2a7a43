"""Filling tensors: wide shrunken factorizations, effects and interpolation, averaged by how they predict what is
held out."""
