"""Build of the Cython modules: every `pyx/*.pyx` becomes the extension `pyx.<noun>`.

`PARTVISOR_DEBUG=1` builds with line tracing and without optimization. All headers of `pyx/` are
listed as dependencies of all modules: the shared layout is one file, and a module that was not
rebuilt after a change of it would read other bytes than its peers write.
"""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, find_packages, setup

DEBUG = os.environ.get("PARTVISOR_DEBUG") == "1"
HEADERS = sorted(str(path) for path in Path("pyx").glob("*.h"))
OPTIMIZATION = ["-O0", "-g"] if DEBUG else ["-O3", "-g1"]

extensions = [
    Extension(
        f"pyx.{path.stem}",
        [str(path)],
        include_dirs=["pyx"],
        depends=HEADERS,
        extra_compile_args=["-std=gnu11", "-fno-strict-aliasing", "-Wall", "-Wno-unused-function", *OPTIMIZATION],
        define_macros=[("CYTHON_TRACE_NOGIL", "1")] if DEBUG else [],
    )
    for path in sorted(Path("pyx").glob("*.pyx"))
]

setup(
    packages=find_packages(include=["pyx", "hostd", "hostd.*", "partitions", "partitions.*", "tools", "tools.*"]),
    package_data={"": ["*.h", "*.pxd", "*.pyi", "*.sql", "*.yaml", "py.typed"]},
    ext_modules=cythonize(
        extensions,
        compiler_directives={
            "language_level": 3,
            "boundscheck": False,
            "wraparound": False,
            "cdivision": True,
            "initializedcheck": False,
            "embedsignature": True,
            "linetrace": DEBUG,
        },
        annotate=DEBUG,
        nthreads=os.cpu_count() or 1,
    ),
)
