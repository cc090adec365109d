"""Which samples to keep.

methods    THE registry: a selection method is one class here
spec       SelectionSpec: everything that determines a selection; parsed, resolved, saved and read again
select     draws it from scores in memory       streaming  from files of any size, read by shards
sharded    from scores over ranks               files      picks the engine for score files
beta       the Beta density and c_D             draw       the exponential race
quotas     how many of each class, and which classes lose all their samples
audit      which labels look wrong, and how many

Every engine gives the same ids for the same spec.
"""

from typing import TYPE_CHECKING

from dualfast._moved import former_names
from dualfast.selection.select import Explanation as Explanation
from dualfast.selection.select import explain as explain
from dualfast.selection.select import kept_count as kept_count
from dualfast.selection.select import select as select

if not TYPE_CHECKING:  # which knows the names of today alone
    __getattr__ = former_names("selection")
