"""Tests of races between processors are skipped where there is only one: nothing would be raced."""

import os

import pytest

needs_two = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="a race between processors needs two of them")
