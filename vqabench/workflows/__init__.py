"""One function per command: what the command line and a notebook both call.

A module each, so that what needs no torch does not load it.
"""
