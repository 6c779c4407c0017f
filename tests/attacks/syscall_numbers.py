"""System call numbers that the attacks use.

Sources: arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h (aarch64) of the Linux source.
From 424 on a number is the same everywhere.
"""

from __future__ import annotations

import platform

X86 = platform.machine() == "x86_64"

_X86_64_AARCH64 = """
    acct 163 89 · add_key 248 217 · bpf 321 280 · capset 126 91 · chroot 161 51 · clock_settime 227 112 · clone 56 220
    copy_file_range 326 285 · delete_module 176 106 · execve 59 221 · execveat 322 281 · fanotify_init 300 262
    fcntl 72 25 · finit_module 313 273 · flock 73 32 · fork 57 - · init_module 175 105 · inotify_init1 294 26
    io_setup 206 0 · ioctl 16 29 · ioperm 173 - · iopl 172 - · ioprio_set 251 30 · kcmp 312 272
    kexec_file_load 320 294 · kexec_load 246 104 · keyctl 250 219 · kill 62 129 · membarrier 324 283
    memfd_create 319 279 · migrate_pages 256 238 · mincore 27 232 · mlock 149 228 · mlockall 151 230
    modify_ldt 154 - · mount 165 40 · move_pages 279 239 · mq_open 240 180 · msgget 68 186
    name_to_handle_at 303 264 · open_by_handle_at 304 265 · perf_event_open 298 241 · personality 135 92
    pivot_root 155 41 · prctl 157 167 · prlimit64 302 261 · process_vm_readv 310 270 · process_vm_writev 311 271
    ptrace 101 117 · quotactl 179 60 · reboot 169 142 · request_key 249 218 · rt_sigqueueinfo 129 138
    sched_setaffinity 203 122 · sched_setattr 314 274 · sched_setscheduler 144 119 · seccomp 317 277 · semget 64 190
    sethostname 170 161 · setns 308 268 · setpriority 141 140 · settimeofday 164 170 · setuid 105 146 · shmget 29 194
    signalfd4 289 74 · socket 41 198 · splice 275 76 · swapoff 168 225 · swapon 167 224 · syslog 103 116
    tee 276 77 · timer_create 222 107 · timerfd_create 283 85 · tkill 200 130 · umount2 166 39 · unshare 272 97
    userfaultfd 323 282 · vfork 58 - · vhangup 153 58 · vmsplice 278 75 · getpid 39 172 · exit 60 93 · link 86 -
    linkat 265 37 · mknodat 259 33 · setgroups 116 159 · chown 92 - · fchownat 260 54 · connect 42 203 · bind 49 200
    recvmsg 47 212 · sendmsg 46 211 · setrlimit 160 164 · vm_unlisted 335 999
    pidfd_send_signal 424 424 · io_uring_setup 425 425 · io_uring_enter 426 426 · io_uring_register 427 427
    open_tree 428 428 · move_mount 429 429 · fsopen 430 430 · fsconfig 431 431 · fsmount 432 432 · fspick 433 433
    pidfd_open 434 434 · clone3 435 435 · close_range 436 436 · openat2 437 437 · pidfd_getfd 438 438
    process_madvise 440 440 · mount_setattr 442 442 · quotactl_fd 443 443 · landlock_create_ruleset 444 444
    landlock_restrict_self 446 446 · memfd_secret 447 447 · process_mrelease 448 448
"""


def _table() -> dict[str, int]:
    found = {}
    for entry in _X86_64_AARCH64.replace("\n", "·").split("·"):
        words = entry.split()
        while words:
            name, x86, aarch64, *words = words
            number = x86 if X86 else aarch64
            if number != "-":
                found[name] = int(number)
    return found


NUMBERS = _table()
