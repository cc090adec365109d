"""Which samples to keep."""

from dualfast.selection.select import Explanation as Explanation
from dualfast.selection.select import explain as explain
from dualfast.selection.select import kept_count as kept_count
from dualfast.selection.select import select as select
