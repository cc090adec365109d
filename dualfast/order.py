"""Orders of an epoch, under the name that version 0.1 documents."""

from dualfast.loading.order import PageRandom as PageRandom
