/* Where a test in Python finds what only C code reaches: byte offsets of fields of the kernel region. */
#include "abi.h"

#include <stdio.h>

int main(void)
{
    printf("terms=%zu\n", offsetof(struct pv_kernel, terms));
    printf("epochs=%zu\n", offsetof(struct pv_kernel, epochs));
    return 0;
}
