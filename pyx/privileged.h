/* Instructions that only a kernel may execute, named at the signal that they end in (U16).
 *
 * The processor refuses them by itself: general protection or invalid opcode, which is SIGSEGV or SIGILL. A handler in the
 * process looks at the instruction, makes one system call that no kernel has, whose number names it, and lets the signal
 * happen again, with its default action. The filter refuses the call, and so it is counted where all refused calls are.
 * It is the partition's own word: one that takes the handler away is not counted, and gains nothing.
 */
#ifndef PV_PRIVILEGED_H
#define PV_PRIVILEGED_H

#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define PV_PRIVILEGED_FIRST 480 /* number of the call for the first of them: above all that kernels have, below 511 */
#define PV_PREFIXES_MAX 14      /* an instruction has at most 15 bytes */

#define PV_PRIVILEGED(X) \
    X(in) X(out) X(ins) X(outs) X(cli) X(sti) X(hlt) X(lgdt) X(lidt) X(lmsw) X(lldt) X(ltr) X(mov_cr) X(mov_dr) X(rdmsr) \
    X(wrmsr) X(rdpmc) X(invd) X(wbinvd) X(invlpg) X(clts) X(swapgs) X(monitor) X(mwait) X(vmx)

enum pv_privileged {
#define PV_NAMED(name) PV_PRIVILEGED_##name,
    PV_PRIVILEGED(PV_NAMED)
#undef PV_NAMED
    PV_PRIVILEGED_COUNT
};

static const char *const pv_privileged_names[] = {
#define PV_NAMED(name) #name,
    PV_PRIVILEGED(PV_NAMED)
#undef PV_NAMED
};

/* Behind 0f 01: descriptor tables by memory, the rest by whole bytes. */
static inline int pv_privileged_group(uint8_t modrm)
{
    switch (modrm) {
    case 0xc1 ... 0xc4: return PV_PRIVILEGED_vmx;
    case 0xc8: return PV_PRIVILEGED_monitor;
    case 0xc9: return PV_PRIVILEGED_mwait;
    case 0xf8: return PV_PRIVILEGED_swapgs;
    }
    uint8_t reg = modrm >> 3 & 7;
    if (reg == 6)
        return PV_PRIVILEGED_lmsw;
    if (modrm >= 0xc0)
        return -1;
    return reg == 2 ? PV_PRIVILEGED_lgdt : reg == 3 ? PV_PRIVILEGED_lidt : reg == 7 ? PV_PRIVILEGED_invlpg : -1;
}

/* Which of them begins at `code`; -1: none. Reads no byte behind the ones that decide it. */
static inline int pv_privileged_at(const uint8_t *code)
{
    for (int i = 0; i < PV_PREFIXES_MAX; i++, code++) {
        uint8_t c = *code;
        if (!(c == 0x66 || c == 0x67 || c == 0xf0 || c == 0xf2 || c == 0xf3 || c == 0x2e || c == 0x36 || c == 0x3e
              || c == 0x26 || c == 0x64 || c == 0x65 || (c & 0xf0) == 0x40))
            break;
    }
    switch (*code) {
    case 0x6c: case 0x6d: return PV_PRIVILEGED_ins;
    case 0x6e: case 0x6f: return PV_PRIVILEGED_outs;
    case 0xe4: case 0xe5: case 0xec: case 0xed: return PV_PRIVILEGED_in;
    case 0xe6: case 0xe7: case 0xee: case 0xef: return PV_PRIVILEGED_out;
    case 0xf4: return PV_PRIVILEGED_hlt;
    case 0xfa: return PV_PRIVILEGED_cli;
    case 0xfb: return PV_PRIVILEGED_sti;
    case 0x0f: break;
    default: return -1;
    }
    switch (code[1]) {
    case 0x00: return (code[2] >> 3 & 7) == 2 ? PV_PRIVILEGED_lldt : (code[2] >> 3 & 7) == 3 ? PV_PRIVILEGED_ltr : -1;
    case 0x01: return pv_privileged_group(code[2]);
    case 0x06: return PV_PRIVILEGED_clts;
    case 0x08: return PV_PRIVILEGED_invd;
    case 0x09: return PV_PRIVILEGED_wbinvd;
    case 0x20: case 0x22: return PV_PRIVILEGED_mov_cr;
    case 0x21: case 0x23: return PV_PRIVILEGED_mov_dr;
    case 0x30: return PV_PRIVILEGED_wrmsr;
    case 0x32: return PV_PRIVILEGED_rdmsr;
    case 0x33: return PV_PRIVILEGED_rdpmc;
    case 0xc7: return (code[2] >> 3 & 7) == 6 ? PV_PRIVILEGED_vmx : -1;
    default: return -1;
    }
}

#if defined(__x86_64__)
/* SIGSEGV of a bad address has an address; general protection has none. */
static void pv_privileged_handle(int signal_number, siginfo_t *info, void *context)
{
    const ucontext_t *at = context;
    if (signal_number != SIGSEGV || info->si_code == SI_KERNEL) {
        int found = pv_privileged_at((const uint8_t *)(uintptr_t)at->uc_mcontext.gregs[REG_RIP]);
        if (found >= 0)
            syscall(PV_PRIVILEGED_FIRST + found);
    }
    /* The handler is gone by now (SA_RESETHAND): the instruction ends the process, as without it. */
}
#endif

/* Whether the handler is there; false on a processor that it knows nothing of. */
static inline int pv_privileged_watch(void)
{
#if defined(__x86_64__)
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = pv_privileged_handle;
    action.sa_flags = SA_SIGINFO | SA_RESETHAND;
    return sigaction(SIGSEGV, &action, NULL) == 0 && sigaction(SIGILL, &action, NULL) == 0;
#else
    return 0;
#endif
}

#endif
