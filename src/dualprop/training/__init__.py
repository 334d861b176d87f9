"""The loop: from settings, perhaps a shipped recipe's, to a trained net in a run folder.

Imports nothing heavy, for the command line reads recipes before torch has loaded.
"""

from dualprop.training import recipes as recipes
