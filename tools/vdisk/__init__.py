"""The verbs of `hostctl vdisk`, one file each; medium.py, held.py and images.py are what they share."""
