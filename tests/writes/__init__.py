"""Sessions on a disk whose n-th write fails, for every n: ``make writes``."""
