"""CSS: counterfactual samples synthesising (Chen et al. 2020), a training procedure for any base."""

from vqabench_css.backbone import Css, CssLmh

__all__ = ["Css", "CssLmh"]
