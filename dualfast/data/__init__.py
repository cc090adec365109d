"""What is trained on: where images come from, the .beton file they are stored in, and lists of sample ids.

sources     one module per kind of data set; each yields encoded images and labels lazily
beton       the file: writing, reading, checking, shrinking
inventory   what a data set consists of: files used, left out, changed since
names       the name of every sample, beside the .beton
index_list  ids, masks and .npy paths, parsed in one place; keep-*.npy with its .json sidecar
images      which files are images, opening one (which formats, and how large) and decoding it to RGB
classes     which numbers labels may have

A sample's id is its row in the .beton, from 0. Everything above speaks of samples by this id.
"""
