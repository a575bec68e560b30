"""Numbers of the system calls that the filter knows, from the kernel's tables."""

from __future__ import annotations

__all__ = ["DENIED", "NUMBERS"]

# Each entry: a call, its number on x86_64 and on aarch64 ("-": it has none there).
# What could start or become another program, or leave the namespaces.
_PROCESSES = """
fork 57 -; vfork 58 -; execve 59 221; execveat 322 281; unshare 272 97; setns 308 268
"""
# What could reach anything through a socket.
_NETWORK = """
socket 41 198; connect 42 203; bind 49 200; listen 50 201; accept 43 202; accept4 288 242;
sendmsg 46 211; sendmmsg 307 269
"""
# What could look into, signal or slow down other processes.
_OTHERS = """
ptrace 101 117; process_vm_readv 310 270; process_vm_writev 311 271; kcmp 312 272;
pidfd_open 434 434; pidfd_getfd 438 438; pidfd_send_signal 424 424; process_madvise 440 440;
process_mrelease 448 448; rt_sigqueueinfo 129 138; rt_tgsigqueueinfo 297 240; tkill 200 130;
setpriority 141 140; sched_setaffinity 203 122; sched_setparam 142 118;
sched_setscheduler 144 119; sched_setattr 314 274; ioprio_set 251 30; move_pages 279 239;
migrate_pages 256 238
"""
# What could change files by their path, which Landlock lets through, or whole file systems.
_FILES = """
chmod 90 -; fchmod 91 52; fchmodat 268 53; fchmodat2 452 452; chown 92 -; fchown 93 55;
lchown 94 -; fchownat 260 54; setxattr 188 5; lsetxattr 189 6; fsetxattr 190 7;
setxattrat 463 463; removexattr 197 14; lremovexattr 198 15; fremovexattr 199 16;
removexattrat 466 466; file_setattr 469 469; utime 132 -; utimes 235 -; futimesat 261 -;
utimensat 280 88; truncate 76 45; mknod 133 -; mknodat 259 33; chroot 161 51;
pivot_root 155 41; mount 165 40; umount2 166 39; mount_setattr 442 442; move_mount 429 429;
open_tree 428 428; open_tree_attr 467 467; fsopen 430 430; fsconfig 431 431; fsmount 432 432;
fspick 433 433; swapon 167 224; swapoff 168 225; quotactl 179 60; quotactl_fd 443 443;
acct 163 89; open_by_handle_at 304 265; name_to_handle_at 303 264; fanotify_init 300 262;
fanotify_mark 301 263; inotify_init 253 -; inotify_init1 294 26; inotify_add_watch 254 27
"""
# What could change or probe the kernel.
_KERNEL = """
reboot 169 142; kexec_load 246 104; kexec_file_load 320 294; init_module 175 105;
finit_module 313 273; delete_module 176 106; iopl 172 -; ioperm 173 -; modify_ldt 154 -;
personality 135 92; sethostname 170 161; setdomainname 171 162; settimeofday 164 170;
clock_settime 227 112; clock_adjtime 305 266; adjtimex 159 171; syslog 103 116; bpf 321 280;
perf_event_open 298 241; userfaultfd 323 282; io_uring_setup 425 425; io_uring_enter 426 426;
io_uring_register 427 427; add_key 248 217; request_key 249 218; keyctl 250 219;
vhangup 153 58; seccomp 317 277; lsm_set_self_attr 460 460; lookup_dcookie 212 18;
nfsservctl 180 42; uselib 134 -
"""
# What could keep memory or disk that outlives the process or escapes its limits.
_SHARED = """
fallocate 285 47; io_setup 206 0;
memfd_create 319 279; memfd_secret 447 447; shmget 29 194; shmat 30 196; shmctl 31 195;
shmdt 67 197; semget 64 190; semop 65 193; semctl 66 191; semtimedop 220 192; msgget 68 186;
msgsnd 69 189; msgrcv 70 188; msgctl 71 187; mq_open 240 180; mq_unlink 241 181
"""
# Calls that the filter lets through for some arguments only.
_JUDGED = """
clone 56 220; clone3 435 435; socketpair 53 199; sendto 44 206; kill 62 129; tgkill 234 131;
prlimit64 302 261; open 2 -; openat 257 56; openat2 437 437; fcntl 72 25; ioctl 16 29;
prctl 157 167; mmap 9 222; close_range 436 436
"""
_ARCHITECTURES = ("x86_64", "aarch64")


def _read(text: str) -> dict[str, dict[str, int]]:
    """Architecture → call → number."""
    rows = [row.split() for row in text.replace("\n", ";").split(";") if row.strip()]
    return {
        architecture: {row[0]: int(row[column]) for row in rows if row[column] != "-"}
        for column, architecture in enumerate(_ARCHITECTURES, start=1)
    }


DENIED = _read(_PROCESSES + _NETWORK + _OTHERS + _FILES + _KERNEL + _SHARED)
"""Architecture → call that is refused whatever its arguments are → its number."""

NUMBERS = _read(_JUDGED)
"""Architecture → call that is refused for some arguments → its number."""
