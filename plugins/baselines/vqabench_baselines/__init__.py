"""Trivial baselines for vqabench: what answers without looking or without asking."""
