"""What the commands do, as steps over a run directory.

commands    run, score, train, report: each a short function
session     what stays open over a command: ranks, data, loaders, checkpoints
datasets    opening the images    classes   matching those of the test images    images   batches
scoring     one scoring pass          trial       one retraining
reporting   what of a run directory goes onto its page
rundir      the files of a run        environment the machine and versions they record
progress    what a command says while it works

A step that is complete leaves a file or a line of metrics.jsonl, and is skipped when that exists.
"""
