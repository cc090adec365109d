"""From the data a user has to images and labels.

images      opening and decoding one image: formats that run nothing, sizes within limits
inventory   what a data set consists of: files used, left out, changed since
sources     folders, Parquet, WebDataset tar files, arrays, digits
beton       the .beton file: writing, reading, verifying, compacting
names       of a .beton's samples, beside it
index_list  lists of samples: parsed from what a user gives, files with a sidecar
"""
