"""The checks of `vqabench plugins check`, for use in a plugin's own tests.

from vqabench.testing import assert_conforms

def test_it_conforms() -> None:
    assert_conforms(MyBackbone, hidden=32)
"""

from vqabench.testing.checks import Check
from vqabench.testing.conformance import assert_conforms, check_class, check_plugin
from vqabench.testing.samples import Innermost, Sample, make_sample, make_spec, take

__all__ = [
    "Check",
    "Innermost",
    "Sample",
    "assert_conforms",
    "check_class",
    "check_plugin",
    "make_sample",
    "make_spec",
    "take",
]
