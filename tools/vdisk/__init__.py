"""The verbs of `hostctl vdisk`, one file each; medium.py, images.py and progress.py are what they share."""
