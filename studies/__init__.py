"""Experiments behind the documentation: matrices of runs, tables of claims, pictures."""
