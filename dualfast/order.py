"""Orders of an epoch, under the name that version 0.1 documents."""

from dualfast.data.index_list import as_indices as as_indices
from dualfast.loading.order import PageRandom as PageRandom
