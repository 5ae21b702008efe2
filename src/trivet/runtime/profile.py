"""The default system call profile: deny with EPERM, allow by purpose.

Nothing is allowed here that Docker's default profile denies; beyond it, x32 calls, AF_VSOCK and AF_ALG
sockets are denied. What a capability is useless without is allowed with that capability.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from trivet.oci.runtime import Seccomp, SyscallArgument, SyscallRule

ALLOWED = {
    "files by descriptor": """
        read write readv writev pread64 pwrite64 preadv pwritev preadv2 pwritev2 lseek _llseek close close_range
        dup dup2 dup3 fcntl fcntl64 ioctl flock fsync fdatasync sync syncfs sync_file_range ftruncate
        ftruncate64 truncate truncate64 fallocate fadvise64 fadvise64_64 readahead copy_file_range sendfile
        sendfile64 splice tee vmsplice memfd_create memfd_secret cachestat""",
    "files by name": """
        open openat openat2 creat stat stat64 lstat lstat64 fstat fstat64 fstatat64 newfstatat statx statfs
        statfs64 fstatfs fstatfs64 access faccessat faccessat2 readlink readlinkat name_to_handle_at link linkat
        symlink symlinkat unlink unlinkat rename renameat renameat2 mkdir mkdirat rmdir mknod mknodat getdents
        getdents64 getcwd chdir fchdir umask""",
    "ownership and times": """
        chmod fchmod fchmodat fchmodat2 chown chown32 fchown fchown32 fchownat lchown lchown32 utime utimes
        futimesat utimensat utimensat_time64 getxattr lgetxattr fgetxattr setxattr lsetxattr fsetxattr listxattr
        llistxattr flistxattr removexattr lremovexattr fremovexattr""",
    "waiting": """
        select _newselect pselect6 pselect6_time64 poll ppoll ppoll_time64 epoll_create epoll_create1 epoll_ctl
        epoll_ctl_old epoll_wait epoll_wait_old epoll_pwait epoll_pwait2 eventfd eventfd2 signalfd signalfd4
        inotify_init inotify_init1 inotify_add_watch inotify_rm_watch fanotify_mark pipe pipe2""",
    "asynchronous input and output": """
        io_setup io_destroy io_submit io_cancel io_getevents io_pgetevents io_pgetevents_time64 ioprio_get
        ioprio_set""",
    "memory": """
        brk mmap mmap2 munmap mremap mprotect msync madvise mincore mlock mlock2 mlockall munlock munlockall
        remap_file_pages membarrier pkey_alloc pkey_free pkey_mprotect process_mrelease map_shadow_stack mseal""",
    "processes and threads": """
        fork vfork execve execveat exit exit_group wait4 waitid waitpid getpid getppid gettid getpgid getpgrp
        getsid setpgid setsid set_tid_address set_robust_list get_robust_list set_thread_area get_thread_area
        arch_prctl modify_ldt prctl rseq uname sysinfo getcpu pidfd_open pidfd_send_signal ptrace
        process_vm_readv process_vm_writev restart_syscall""",
    "synchronisation": """
        futex futex_time64 futex_waitv futex_wait futex_wake futex_requeue semget semop semctl semtimedop
        semtimedop_time64 shmget shmat shmctl shmdt msgget msgsnd msgrcv msgctl ipc mq_open mq_unlink
        mq_timedsend mq_timedsend_time64 mq_timedreceive mq_timedreceive_time64 mq_notify mq_getsetattr""",
    "signals": """
        kill tkill tgkill rt_sigaction rt_sigprocmask rt_sigpending rt_sigqueueinfo rt_tgsigqueueinfo
        rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 sigaltstack sigprocmask sigreturn
        pause""",
    "time": """
        time gettimeofday clock_gettime clock_gettime64 clock_getres clock_getres_time64 clock_nanosleep
        clock_nanosleep_time64 clock_adjtime clock_adjtime64 adjtimex nanosleep alarm getitimer setitimer times
        timer_create timer_delete timer_settime timer_settime64 timer_gettime timer_gettime64 timer_getoverrun
        timerfd_create timerfd_settime timerfd_settime64 timerfd_gettime timerfd_gettime64""",
    "scheduling and limits": """
        sched_yield sched_getaffinity sched_setaffinity sched_getparam sched_setparam sched_getscheduler
        sched_setscheduler sched_getattr sched_setattr sched_get_priority_max sched_get_priority_min
        sched_rr_get_interval sched_rr_get_interval_time64 getpriority setpriority getrlimit ugetrlimit
        setrlimit prlimit64 getrusage""",
    "identity": """
        getuid getuid32 geteuid geteuid32 getgid getgid32 getegid getegid32 getresuid getresuid32 getresgid
        getresgid32 getgroups getgroups32 setuid setuid32 setgid setgid32 setreuid setreuid32 setregid
        setregid32 setresuid setresuid32 setresgid setresgid32 setgroups setgroups32 setfsuid setfsuid32
        setfsgid setfsgid32 capget capset seccomp landlock_create_ruleset landlock_add_rule
        landlock_restrict_self getrandom""",
    "sockets": """
        socketpair socketcall bind listen accept accept4 connect shutdown getsockname getpeername getsockopt
        setsockopt sendto sendmsg sendmmsg recvfrom recvmsg recvmmsg recvmmsg_time64""",
}  # fmt: skip

WITH_CAPABILITY = {
    "CAP_BPF": "bpf",
    "CAP_DAC_READ_SEARCH": "open_by_handle_at",
    "CAP_PERFMON": "perf_event_open",
    "CAP_SYS_ADMIN": """
        bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr
        move_mount open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog umount
        umount2 unshare""",
    "CAP_SYS_BOOT": "reboot",
    "CAP_SYS_CHROOT": "chroot",
    "CAP_SYS_MODULE": "init_module finit_module delete_module",
    "CAP_SYS_NICE": "get_mempolicy set_mempolicy set_mempolicy_home_node mbind",
    "CAP_SYS_PACCT": "acct",
    "CAP_SYS_PTRACE": "kcmp pidfd_getfd process_madvise",
    "CAP_SYS_RAWIO": "iopl ioperm",
    "CAP_SYS_TIME": "settimeofday stime clock_settime clock_settime64",
    "CAP_SYS_TTY_CONFIG": "vhangup",
    "CAP_SYSLOG": "syslog",
}

NEW_NAMESPACES = 0x7E020000  # CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)  # PER_LINUX, PER_LINUX32, each with UNAME26, and the query
FORBIDDEN_FAMILIES = (38, 40)  # AF_ALG, AF_VSOCK
ENOSYS = 38


def default(capabilities: Iterable[str]) -> Seccomp:
    """Build the default profile for a program with these capabilities."""
    return _default(frozenset(capabilities) & frozenset(WITH_CAPABILITY))


@lru_cache(maxsize=16)
def _default(capabilities: frozenset[str]) -> Seccomp:
    texts = [*ALLOWED.values(), *(WITH_CAPABILITY[name] for name in sorted(capabilities))]
    names = tuple(name for text in texts for name in text.split())
    rules = [_allow(names), *_conditional()]
    if "CAP_SYS_ADMIN" not in capabilities:
        rules.append(SyscallRule(names=("clone3",), action="SCMP_ACT_ERRNO", errno_ret=ENOSYS))
    return Seccomp(
        default_action="SCMP_ACT_ERRNO",
        default_errno_ret=1,
        architectures=("SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_AARCH64"),
        syscalls=tuple(rules),
    )


def _conditional() -> list[SyscallRule]:
    no_namespace = SyscallArgument(index=0, value=NEW_NAMESPACES, value_two=0, op="SCMP_CMP_MASKED_EQ")
    families = [SyscallArgument(index=0, value=number, op="SCMP_CMP_NE") for number in FORBIDDEN_FAMILIES]
    personalities = [SyscallArgument(index=0, value=number, op="SCMP_CMP_EQ") for number in PERSONALITIES]
    return [
        _allow(("clone",), no_namespace),
        _allow(("socket",), *families),
        *(_allow(("personality",), personality) for personality in personalities),
    ]


def _allow(names: tuple[str, ...], *conditions: SyscallArgument) -> SyscallRule:
    return SyscallRule(names=names, action="SCMP_ACT_ALLOW", args=conditions)
