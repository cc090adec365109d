"""The processes of one training: which rank this is, and the collectives the package needs.

ranks       join() reads torchrun's environment and gives a Ranks; on one process everything is a no-op
collectives rows to the ranks that own them, and back

Only torch.distributed is used, under whatever launcher started it.
"""
