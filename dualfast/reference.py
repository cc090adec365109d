"""The specification: every operation of dualfast in plain float64 NumPy.

Nothing here is fast and nothing here is clever. The compiled paths are tested against these functions, and these
against closed forms and scipy.
"""

from __future__ import annotations

# ---- scores ---------------------------------------------------------------------------------------------------------


# ---- selection ------------------------------------------------------------------------------------------------------
