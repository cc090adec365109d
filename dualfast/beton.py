"""dualfast.data.beton under its documented name: `from dualfast.beton import open_beton` keeps working."""

from dualfast.data.beton import open_beton as open_beton
