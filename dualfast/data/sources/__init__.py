"""Data sets as they come: folders, tables, archives, arrays. One module per kind; registry.KINDS lists them.

An opened data set is a Source. It knows its labels and class names up front and yields its images lazily, as encoded
bytes or uint8 arrays. Nothing outside the data set is opened, and nothing is unpickled.

To add a kind: a module that declares a KIND (see source.Kind), a line in registry.KINDS, a test.
"""

from dualfast.data.images import Payload as Payload
from dualfast.data.images import decode as decode
from dualfast.data.images import suffixes as suffixes
from dualfast.data.sources.file_list import table_splits as table_splits
from dualfast.data.sources.registry import expand as expand
from dualfast.data.sources.registry import files_of as files_of
from dualfast.data.sources.registry import find_kind as find_kind
from dualfast.data.sources.registry import open_source as open_source
from dualfast.data.sources.registry import options_of as options_of
from dualfast.data.sources.remote import is_url as is_url
from dualfast.data.sources.remote import with_urls as with_urls
from dualfast.data.sources.sklearn_digits import digits as digits
from dualfast.data.sources.source import Source as Source
from dualfast.data.sources.splits import Where as Where
from dualfast.data.sources.splits import flat_test as flat_test
from dualfast.data.sources.splits import hold_out as hold_out
from dualfast.data.sources.splits import splits as splits
from dualfast.data.sources.splits import unused_parts as unused_parts
