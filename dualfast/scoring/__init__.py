"""Scores of every sample, gathered while a network trains.

loss          DualLoss: cross-entropy whose kernel also records each sample's visit
table         ScoreTable: one 64-byte line per sample, updated in place
scores        Scores: the columns computed from the lines, and their Parquet file
trajectories  scores as functions of each sample's visits over time: @score
tdds          TDDS, which needs all classes
sharded       ShardedTable: the same over ranks; a line lives on the rank (id mod world size)
"""
