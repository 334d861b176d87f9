"""The loop: from settings, perhaps a shipped recipe's, to a trained net in a run folder; streams, which have none.

Imports nothing heavy, for the command line reads recipes before torch has loaded.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submodules=["recipes", "stream"])
