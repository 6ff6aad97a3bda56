"""`vqabench doctor`."""

EXAMPLES = ""


def doctor() -> None:
    """X."""
