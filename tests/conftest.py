"""Settings of the whole suite: property tests without a deadline, the same examples in every run."""

from hypothesis import settings

settings.register_profile("dualprop", deadline=None, derandomize=True, database=None, max_examples=50)
settings.load_profile("dualprop")
