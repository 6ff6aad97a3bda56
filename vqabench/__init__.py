"""Benchmark backbones and loss strategies for Visual Question Answering under language-prior shift."""

__version__ = "0.2.0"
