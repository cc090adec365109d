"""The page of a run: one HTML file that needs no network.

summary   the numbers and the sentences
figures   the pictures, in Bokeh
page      puts them together with galleries and the table
"""
