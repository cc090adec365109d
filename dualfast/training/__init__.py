"""The loop that scoring and retraining share.

fit                 trains a network on a loader with a criterion; knows nothing of run directories
models              the networks, and "module:factory" for any other
trial_batch         a batch through the model before any work
device              device and mixed precision
checkpoint          when to save; checkpoint_files: how it lies on disk; checkpoint_resume: which one to resume from
stop_signal         SIGTERM and SIGUSR1 end a training after its step
"""

from typing import TYPE_CHECKING

from dualfast._moved import former_names

if not TYPE_CHECKING:  # which knows the names of today alone
    __getattr__ = former_names("training")
