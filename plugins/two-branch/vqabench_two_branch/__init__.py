"""Learned-mixin backbones for vqabench: a question-type prior beside any base."""
