"""From a .beton to batches.

loader       Loader, the drop-in for ffcv.loader.Loader
order        the sequence of an epoch, a function of (seed, epoch, id); which rank visits what
cursor       how far an iteration has come: one immutable value, saved in checkpoints
epoch        one rank's epoch as batches, made on a thread of its own
buffers      memory of batches, reused once no tensor refers to it
decode       what the default pipelines do to an image
pipelines    from ids to the tensors of a batch: the default pipelines, without FFCV
read_plan    which bytes an epoch reads; readahead asks for them in time
prefetch     runs a producer ahead of its consumer, and passes on its exceptions
sampler      samplers for other loaders
ffcv_graph   everything that touches FFCV; imported only for pipelines of its operations
"""
