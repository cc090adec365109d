"""Files that survive a crash. A file appears under its final name only when it is complete.

files       atomic(): write under a temporary name, sync, rename
resumable   Partial: a file made in steps, with a journal, that continues after an interruption
npy         .npy files from anybody, within limits
plain       JSON and YAML from anybody, within limits
records     JSON lines, append only; a line cut off by a crash is dropped
locks       one process per folder
"""
