"""Dual propagation and the methods it is compared with: networks that learn without backprop.

The public names are those of `__init__.pyi`; each is imported when it is first used, so that the command line
answers before torch has loaded.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__version__ = "0.1.0"
