"""Speed, memory and results, measured."""
