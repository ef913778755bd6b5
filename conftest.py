"""What tests and chapters share: no progress bars, no windows, no deadlines, and the quick profile."""

import os

import matplotlib
from hypothesis import settings

os.environ.setdefault("TQDM_DISABLE", "1")
os.environ.setdefault("MTL_REF_PROFILE", "quick")
if os.environ["MTL_REF_PROFILE"] == "quick":  # its expected values are those of the embedded data
    os.environ.pop("MTL_REF_DATA", None)
matplotlib.use("agg")
settings.register_profile("book", deadline=None)  # no test depends on a time
settings.load_profile("book")
