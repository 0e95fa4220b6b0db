"""Fits a detector to readings and writes a model bundle. `trainer.training.train` is the library's entry."""
