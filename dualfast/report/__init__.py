"""The page of a run: one HTML file that needs no network.

summary   the numbers and the sentences
figures   the pictures, in Bokeh
explorer  what the data map shows, packed; explorer.js draws it
page      puts them together with galleries and the table
"""

from typing import TYPE_CHECKING

from dualfast._moved import former_names

if not TYPE_CHECKING:  # which knows the names of today alone
    __getattr__ = former_names("report")
