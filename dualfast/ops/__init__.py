"""The only package that imports _C and the kernels; a module per operation."""

from typing import TYPE_CHECKING

from dualfast._moved import former_names
from dualfast.ops.crops import crop_boxes as crop_boxes
from dualfast.ops.guard import GuardedMap as GuardedMap
from dualfast.ops.images import JPEG_LIBRARY as JPEG_LIBRARY
from dualfast.ops.images import READ_STATUS as READ_STATUS
from dualfast.ops.images import UNDECODED as UNDECODED
from dualfast.ops.images import load_images as load_images
from dualfast.ops.images import place_images as place_images
from dualfast.ops.layout import BAD_INDEX as BAD_INDEX
from dualfast.ops.layout import BAD_TARGET as BAD_TARGET
from dualfast.ops.layout import DUPLICATES as DUPLICATES
from dualfast.ops.layout import EL2N_VISITS as EL2N_VISITS
from dualfast.ops.layout import FINISHED as FINISHED
from dualfast.ops.layout import MAX_VISITS as MAX_VISITS
from dualfast.ops.layout import NON_FINITE as NON_FINITE
from dualfast.ops.layout import PAUSED as PAUSED
from dualfast.ops.layout import STATUS as STATUS
from dualfast.ops.philox import order_keys as order_keys
from dualfast.ops.ranks import Bands as Bands
from dualfast.ops.ranks import Cuts as Cuts
from dualfast.ops.ranks import DigitLevel as DigitLevel
from dualfast.ops.ranks import Ranking as Ranking
from dualfast.ops.ranks import at_nodes as at_nodes
from dualfast.ops.ranks import digit_histogram as digit_histogram
from dualfast.ops.ranks import extents as extents
from dualfast.ops.ranks import mark_below as mark_below
from dualfast.ops.ranks import stratify as stratify
from dualfast.ops.ranks import values_of as values_of
from dualfast.ops.select import ALL as ALL
from dualfast.ops.select import REACH as REACH
from dualfast.ops.select import ZERO_WEIGHT_KEY as ZERO_WEIGHT_KEY
from dualfast.ops.select import Bits as Bits
from dualfast.ops.select import Classified as Classified
from dualfast.ops.select import Column as Column
from dualfast.ops.select import Floats as Floats
from dualfast.ops.select import Groups as Groups
from dualfast.ops.select import Ints as Ints
from dualfast.ops.select import Numbers as Numbers
from dualfast.ops.select import Race as Race
from dualfast.ops.select import bits_at as bits_at
from dualfast.ops.select import classify as classify
from dualfast.ops.select import classify_groups as classify_groups
from dualfast.ops.select import count_bits as count_bits
from dualfast.ops.select import key_histogram as key_histogram
from dualfast.ops.select import largest as largest
from dualfast.ops.select import number_labels as number_labels
from dualfast.ops.select import outside as outside
from dualfast.ops.select import positions as positions
from dualfast.ops.select import race_keys as race_keys
from dualfast.ops.select import set_bits as set_bits
from dualfast.ops.select import set_level as set_level
from dualfast.ops.select import settle_by_ratio as settle_by_ratio
from dualfast.ops.select import settle_groups as settle_groups
from dualfast.ops.step import DEBUG as DEBUG
from dualfast.ops.step import bad_index as bad_index
from dualfast.ops.step import bad_targets as bad_targets
from dualfast.ops.step import check_status as check_status
from dualfast.ops.step import check_step as check_step
from dualfast.ops.step import observe as observe
from dualfast.ops.step import overlaps_itself as overlaps_itself
from dualfast.ops.step import pick_backend as pick_backend
from dualfast.ops.step import run_step as run_step
from dualfast.ops.step import runs_on as runs_on
from dualfast.ops.step import scale_grad as scale_grad
from dualfast.ops.step import step as step
from dualfast.ops.step_args import BACKENDS as BACKENDS
from dualfast.ops.step_args import BESIDE as BESIDE
from dualfast.ops.step_args import STEP_OPTIONS as STEP_OPTIONS
from dualfast.ops.step_args import Lines as Lines
from dualfast.ops.step_args import Observations as Observations
from dualfast.ops.step_args import Reduction as Reduction
from dualfast.ops.step_args import StepInputs as StepInputs
from dualfast.ops.step_args import StepOptions as StepOptions
from dualfast.ops.step_args import check_options as check_options
from dualfast.ops.step_args import step_options as step_options

if not TYPE_CHECKING:  # which knows the names of today alone
    __getattr__ = former_names("ops")
