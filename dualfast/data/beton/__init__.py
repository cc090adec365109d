"""The .beton file: its layout (format), reading (tables, reader), writing (write), checking (verify) and shrinking
(compact) one."""

from dualfast.data.beton.format import JPEG as JPEG
from dualfast.data.beton.format import RAW as RAW
from dualfast.data.beton.publish import Written as Written
from dualfast.data.beton.reader import Beton as Beton
from dualfast.data.beton.reader import open_beton as open_beton
from dualfast.data.beton.verify import verify as verify
from dualfast.data.beton.write import write as write
