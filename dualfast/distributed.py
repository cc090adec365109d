"""Scores and selection over the processes of a training, under the name that version 0.1 documents."""

from dualfast.scoring.sharded import ShardedTable as ShardedTable
from dualfast.scoring.sharded import load_parts as load_parts
from dualfast.selection.sharded import select as select
