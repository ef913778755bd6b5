import matplotlib
from hypothesis import settings

matplotlib.use("agg")
settings.register_profile("book", deadline=None)  # no test depends on a time
settings.load_profile("book")
