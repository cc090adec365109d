"""The .beton file: its format (format), and making (write), checking (verify) and shrinking (compact) one."""

from dualfast.data.beton.format import Beton as Beton
from dualfast.data.beton.format import fingerprint as fingerprint
from dualfast.data.beton.format import open_beton as open_beton
from dualfast.data.beton.write import JPEG as JPEG
from dualfast.data.beton.write import RAW as RAW
from dualfast.data.beton.write import Written as Written
from dualfast.data.beton.write import verify as verify
from dualfast.data.beton.write import write as write
