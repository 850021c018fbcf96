"""Build of the Cython modules: every `pyx/*.pyx` becomes the extension `pyx.<noun>`.

`PARTVISOR_DEBUG=1` builds with line tracing and without optimization. All headers of `pyx/` are
listed as dependencies of all modules: the shared layout is one file, and a module that was not
rebuilt after a change of it would read other bytes than its peers write. Only the headers of the
volume, of sockets and of faults on purpose, which share nothing with anybody, concern the modules
alone that name `volumec`, `tcpc` or `faultsc`.
"""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext


class ParallelBuild(build_ext):
    """Compiles as many extensions at once as there are processors: they do not depend on each other."""

    def finalize_options(self) -> None:
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count()


DEBUG = os.environ.get("PARTVISOR_DEBUG") == "1"
HEADERS = sorted(str(path) for path in Path("pyx").glob("*.h"))
OWN = ("volume", "tcp", "faults", "capacity")
PRIVATE = {path: f"{name}c" for path in HEADERS for name in OWN if Path(path).name.startswith(name)}
OPTIMIZATION = ["-O0", "-g"] if DEBUG else ["-O3", "-g1"]


def headers_of(path: Path) -> list[str]:
    """Headers whose change has to rebuild the module at `path`."""
    return [header for header in HEADERS if header not in PRIVATE or PRIVATE[header] in path.read_text()]


extensions = [
    Extension(
        f"pyx.{path.stem}",
        [str(path)],
        include_dirs=["pyx"],
        depends=headers_of(path),
        extra_compile_args=["-std=gnu11", "-fno-strict-aliasing", "-Wall", "-Wno-unused-function", *OPTIMIZATION],
        define_macros=[("CYTHON_TRACE_NOGIL", "1")] if DEBUG else [],
    )
    for path in sorted(Path("pyx").glob("*.pyx"))
]

setup(
    cmdclass={"build_ext": ParallelBuild},
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
