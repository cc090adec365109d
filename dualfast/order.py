"""Orders of an epoch, under the name that version 0.1 documents."""

from typing import TYPE_CHECKING

from dualfast._moved import former_names
from dualfast.data.index_list import as_indices as as_indices
from dualfast.loading.order import PageRandom as PageRandom

if not TYPE_CHECKING:  # which knows the names of today alone
    __getattr__ = former_names("order")
