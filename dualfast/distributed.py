"""Scores and selection over the processes of a training, under the name that version 0.1 documents."""

from typing import TYPE_CHECKING

from dualfast._moved import former_names
from dualfast.scoring.sharded import ShardedTable as ShardedTable
from dualfast.scoring.sharded import load_parts as load_parts
from dualfast.selection.sharded import select as select

if not TYPE_CHECKING:  # which knows the names of today alone
    __getattr__ = former_names("distributed")
