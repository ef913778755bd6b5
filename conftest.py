"""What tests and chapters share: they run without progress bars, in the quick profile."""

import os

os.environ.setdefault("TQDM_DISABLE", "1")
os.environ.setdefault("MTL_REF_PROFILE", "quick")
if os.environ["MTL_REF_PROFILE"] == "quick":  # whose expectations are those of the embedded data
    os.environ.pop("MTL_REF_DATA", None)
