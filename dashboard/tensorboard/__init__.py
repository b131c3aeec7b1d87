"""The tab HIDDENSCOPE of TensorBoard. Every start of TensorBoard imports this, so it loads nothing heavy."""

from hiddenscope.dashboard.tensorboard.plugin import HiddenscopePlugin

__all__ = ["HiddenscopePlugin"]
