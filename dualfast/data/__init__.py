"""What is trained on: where images come from, the .beton file they are stored in, and lists of sample ids.

sources     one module per kind of data set; each yields encoded images and labels lazily
beton       the file: writing, reading, checking, shrinking
index_list  ids, masks and .npy paths, parsed in one place; keep-*.npy with its .json sidecar
images      opening and decoding one image: which formats, and how large
classes     which numbers labels may have

A sample's id is its row in the .beton, from 0. Everything above speaks of samples by this id.
"""
