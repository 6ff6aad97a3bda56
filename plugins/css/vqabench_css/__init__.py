"""Counterfactual samples synthesising for vqabench, around any base."""
