"""The models that can be trained: one file each, with what `models.interface` describes.

A file that is put here is an architecture of both images; its name is the file's.
"""
