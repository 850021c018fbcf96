"""Instructions that only a kernel may execute: a guest's process names the one that it dies of (U16)."""

cdef extern from "privileged.h" nogil:
    int PV_PRIVILEGED_FIRST, PV_PRIVILEGED_COUNT
    const char **pv_privileged_names
    int pv_privileged_watch()
    int pv_privileged_at(const unsigned char *code)

FIRST = PV_PRIVILEGED_FIRST  # number of the system call that stands for the first of NAMES
NAMES = tuple([(<bytes>pv_privileged_names[i]).decode() for i in range(PV_PRIVILEGED_COUNT)])


def watch() -> bool:
    """From now on, in this process and in those that it forks; False on a processor whose instructions it does not
    know. Whoever takes the handler away is not counted."""
    return bool(pv_privileged_watch())


def name_of(bytes code) -> str | None:
    """The one that begins with these bytes, as the handler finds it; None: no privileged one."""
    cdef bytes padded = code + bytes(16)
    cdef int found = pv_privileged_at(padded)
    return None if found < 0 else NAMES[found]
