"""Attack the tool `python` and report what got out.

    python benchmarks/sandbox.py [--kind bubblewrap|landlock] [--race N] [--json] [--tiny]

Each attack is a program for the tool. Whether it escaped is judged by what can be seen from
outside: a secret in the output, a file that changed, a connection that arrived, a process that is
still there. The last attack is a race against the removal of the working directory; it runs
N times, 40 by default. Without `--kind`, every kind that works here is attacked.
The exit code is 1 when an attack escaped, 2 when there is no sandbox here.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import resource
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from latentmas.sandbox import KINDS, Kind, working
from latentmas.tools import Tool, python_tool

MEBIBYTE = 2**20
MOST_PROCESSES = 4  # of one name at a time, helpers of the sandbox included
MOST_THREADS = 200  # of one name at a time
MOST_DISK = 256 * MEBIBYTE
MOST_GROWTH = 64 * MEBIBYTE  # of this process's memory, for any output
GRACE = 30.0  # seconds beyond the time limit: a busy machine is slow to clean up
# Every attack may use these: run a raw system call, try something and say how it failed.
HELPERS = """
import ctypes, os, platform, resource, signal, socket, struct, time
libc = ctypes.CDLL(None, use_errno=True)
ARM = platform.machine() == "aarch64"
def call(x86, arm, *arguments):
    number = arm if ARM else x86
    longs = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result = libc.syscall(ctypes.c_long(number), *longs)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
def attempt(action):
    try:
        print("did it:", action())
    except BaseException as error:
        print("refused:", type(error).__name__, error)
libc.prctl(15, NAME.encode(), 0, 0, 0)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p] + [ctypes.c_long] * 5
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
stacks = ctypes.create_string_buffer(2**20)
def thread(flags=0x10f00):  # of the kernel alone, without Python or a library knowing of it
    top = ctypes.c_void_p(ctypes.addressof(stacks) + 2**19)
    if libc.clone(libc.pause, top, flags, None) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
def held(number):
    print('held', number, 'MiB', flush=True)
"""


@dataclass
class World:
    """What the attacks aim at, and what is noticed from outside."""

    folder: Path
    home_file: Path
    victim: subprocess.Popen[bytes]
    tcp: socket.socket
    udp: socket.socket
    unix: socket.socket
    abstract: socket.socket
    secret: str
    name: str = field(default_factory=lambda: f"lm{secrets.token_hex(5)}")
    """What an attack calls its processes."""
    signals: list[int] = field(default_factory=list)
    """Signals that reached this process."""
    most_processes: int = 0
    most_threads: int = 0
    most_disk: int = 0
    """Bytes."""

    def target(self) -> Path:
        """A file that no attack may change."""
        return self.folder / "target"

    def processes(self) -> int:
        """How many processes carry the attack's name now."""
        found = 0
        for path in Path("/proc").glob("[0-9]*/comm"):
            with contextlib.suppress(OSError):
                found += path.read_text().strip() == self.name
        return found

    def threads(self) -> int:
        """How many threads processes of the attack's name have now."""
        found = 0
        for path in Path("/proc").glob("[0-9]*/comm"):
            with contextlib.suppress(OSError):
                if path.read_text().strip() == self.name:
                    found += len(list(path.with_name("task").iterdir()))
        return found

    def disk(self) -> int:
        """Bytes in the working directories now."""
        size = 0
        for folder, _, files in os.walk(self.folder / "temporary"):
            for name in files:
                with contextlib.suppress(OSError):
                    size += Path(folder, name).lstat().st_blocks * 512
        return size

    def arrived(self) -> bool:
        """Whether anything reached one of the sockets."""
        for server in (self.tcp, self.unix, self.abstract):
            with contextlib.suppress(BlockingIOError):
                server.accept()[0].close()
                return True
        with contextlib.suppress(BlockingIOError):
            return bool(self.udp.recv(100))
        return False

    def sample(self, ended: threading.Event) -> None:
        """Watch processes, threads and disk until told to end."""
        while not ended.wait(0.03):
            self.most_processes = max(self.most_processes, self.processes())
            self.most_threads = max(self.most_threads, self.threads())
            self.most_disk = max(self.most_disk, self.disk())


@dataclass(frozen=True)
class Attack:
    """A program, and the test for its success."""

    name: str
    code: str
    """Uses PORT, UDP, UNIX, ABSTRACT, VICTIM, PARENT, HOME, TARGET and NAME."""
    escaped: Callable[[World], bool] = lambda world: False
    """What to look at besides secrets, sockets, signals, processes, disk, memory and time."""


@dataclass(frozen=True)
class Result:
    """A row of the table."""

    attack: str
    outcome: str
    seen: str
    seconds: float


def target_changed(world: World) -> bool:
    """Whether the file outside is not what it was."""
    path = world.target()
    content = path.read_text() if path.exists() else ""
    same = content == "untouched\n" and path.stat().st_mode & 0o777 == 0o600
    return not same or int(path.stat().st_mtime) != 1_000_000_000


def left_a_file(world: World) -> bool:
    """Whether something new lies outside."""
    return any(path.name.startswith("written") for path in world.folder.iterdir())


def victim_suffered(world: World) -> bool:
    """Whether the other process is gone or was given new limits."""
    limits = resource.prlimit(world.victim.pid, resource.RLIMIT_CORE)
    return world.victim.poll() is not None or limits != resource.getrlimit(resource.RLIMIT_CORE)


ATTACKS = (
    Attack("read /etc/passwd", "attempt(lambda: open('/etc/passwd').read())"),
    Attack("read an environment secret", "print(dict(os.environ)); libc.getenv.restype = "
           "ctypes.c_char_p; print(libc.getenv(b'FAKE_SECRET'))"),
    Attack("read another process's environment", "for pid in (PARENT, os.getppid(), VICTIM):\n"
           "    attempt(lambda: open(f'/proc/{pid}/environ', 'rb').read())"),
    Attack("read a file in the home directory", "attempt(lambda: open(HOME).read())"),
    Attack("read through a symbolic link", "os.symlink(HOME, 'a'); os.symlink('/', 'b')\n"
           "attempt(lambda: open('a').read()); attempt(lambda: open('b' + HOME).read())"),
    Attack("write outside the working directory", "for path in (TARGET, TARGET[:-6] + 'written', "
           "'../written', '/tmp/' + NAME):\n    attempt(lambda: open(path, 'w').write('x'))",
           lambda world: target_changed(world) or left_a_file(world)
           or Path("/tmp", world.name).exists()),
    Attack("change a file by its path", "attempt(lambda: os.chmod(TARGET, 0o777))\n"
           "attempt(lambda: os.truncate(TARGET, 0)); attempt(lambda: os.utime(TARGET))\n"
           "attempt(lambda: os.open(TARGET, 3 | os.O_TRUNC)); attempt(lambda: os.remove(TARGET))\n"
           "attempt(lambda: os.link(TARGET, 'link')); attempt(lambda: os.rename(TARGET, 'moved'))",
           target_changed),
    Attack("open a TCP connection",
           "attempt(lambda: socket.create_connection(('127.0.0.1', PORT)))"),
    Attack("send a UDP datagram", "attempt(lambda: socket.socket(type=socket.SOCK_DGRAM)"
           ".sendto(b'x', ('127.0.0.1', UDP)))"),
    Attack("reach a unix socket", "for path in (UNIX, ABSTRACT):\n"
           "    attempt(lambda: socket.socket(socket.AF_UNIX).connect(path))"),
    Attack("use sockets through io_uring", "attempt(lambda: call(425, 425, 8, bytes(120)))"),
    Attack("allocate 4 GiB", "attempt(lambda: len(bytearray(b'x' * 2**32)) and TOUCHED)"),
    Attack("fork bomb", "while True:\n    try:\n        os.fork()\n    except OSError as error:\n"
           "        print('refused:', error); break"),
    Attack("fork by raw system calls", "attempt(lambda: call(56, 220, 17, 0, 0, 0, 0) or "
           "time.sleep(60)); attempt(lambda: call(435, 435, struct.pack('4Q', 0, 0, 0, 0) + "
           "struct.pack('7Q', 17, 0, 0, 0, 0, 0, 0), 88) or time.sleep(60))"),
    Attack("leave a daemon behind", "def daemon():\n    if os.fork(): return 'forked'\n"
           "    os.setsid()\n    if os.fork(): os._exit(0)\n    time.sleep(60)\nattempt(daemon)"),
    Attack("leave a thread behind", "import threading\nthreading.Thread(target=time.sleep, "
           "args=(60,), daemon=True).start()\nos.close(1); os.close(2); time.sleep(60)"),
    Attack("print 100 MB", "for _ in range(100):\n    print('x' * 10**6)"),
    Attack("loop for ever", "signal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass"),
    Attack("sleep for ever, deaf to signals", "for number in range(1, 65):\n    try: "
           "signal.signal(number, signal.SIG_IGN)\n    except (OSError, ValueError): pass\n"
           "time.sleep(600)"),
    Attack("fill the disk", "for n in range(1000):\n    with open(f'f{n}', 'wb') as file: "
           "file.write(bytes(10**7))"),
    Attack("fill the directory", "for n in range(10**6): open(f'f{n}', 'w').close()"),
    Attack("nest directories", "for n in range(10**6): os.mkdir('d'); os.chdir('d')"),
    Attack("kill the parent", "for pid in (PARENT, os.getppid(), VICTIM, -1, 0):\n"
           "    attempt(lambda: os.kill(pid, signal.SIGTERM))", victim_suffered),
    Attack("have a pipe signal another process", "import fcntl\nread, write = os.pipe()\n"
           "attempt(lambda: fcntl.fcntl(read, 8, VICTIM))\n"
           "attempt(lambda: fcntl.fcntl(read, 10, 9))\n"
           "fcntl.fcntl(read, fcntl.F_SETFL, os.O_ASYNC); os.write(write, b'x')", victim_suffered),
    Attack("tighten another process's limits", "attempt(lambda: resource.prlimit(VICTIM, "
           "resource.RLIMIT_CORE, (1, 1)))", victim_suffered),
    Attack("trace another process", "for pid in (PARENT, VICTIM):\n"
           "    attempt(lambda: call(101, 117, 16, pid, 0, 0))"),
    Attack("become a shell", "attempt(lambda: os.execv('/bin/sh', ['sh', '-c', "
           "'echo $FAKE_SECRET; cat ' + HOME + '; echo x > ' + TARGET]))", target_changed),
    Attack("enter new name spaces", "attempt(lambda: call(272, 97, 0x10020000)); "
           "attempt(lambda: call(165, 40, b'none', b'/', b'tmpfs', 0, 0))"),
    Attack("keep shared memory", "attempt(lambda: call(29, 194, 0x4c4d, 2**20, 0o1600))",
           lambda world: " 19533 " in f" {Path('/proc/sysvipc/shm').read_text()} "),
    Attack("hold deleted files that are mapped", "import mmap\nkept = []\nfor n in range(120):\n"
           "    with open('f', 'wb+') as file:\n        file.write(bytes(2**24))\n"
           "        file.flush()\n        kept.append(mmap.mmap(file.fileno(), 4096))\n"
           "    os.unlink('f'); held(16 * len(kept))"),
    Attack("hold deleted files that are open", "kept = []\nfor n in range(25):\n"
           "    kept.append(open('f', 'wb', buffering=0)); os.unlink('f')\n"
           "    kept[-1].write(bytes(2**24)); held(16 * len(kept))"),
    Attack("hold deleted files by fallocate", "import mmap\nkept = []\nfor n in range(120):\n"
           "    with open('f', 'wb+') as file:\n        call(285, 47, file.fileno(), 0, 0, 2**24)\n"
           "        kept.append(mmap.mmap(file.fileno(), 4096))\n"
           "    os.unlink('f'); held(16 * len(kept))"),
    Attack("rename files while they are counted", "import threading\nmade = []\ndef rename():\n"
           "    turn = 0\n    while True:\n        turn += 1\n        for n in list(made):\n"
           "            os.rename(f'f{n}-{turn - 1 if n in seen else 0}', f'f{n}-{turn}')\n"
           "            seen.add(n)\nseen = set()\n"
           "def fill():\n    for n in range(120):\n"
           "        with open(f'f{n}-0', 'wb') as file: file.write(bytes(2**24))\n"
           "        made.append(n); held(16 * len(made))\n"
           "threading.Thread(target=fill, daemon=True).start(); rename()"),
    Attack("hold shared memory by one page", "kept = []\nfor n in range(20):\n"
           "    at = libc.mmap(None, 2**26, 3, 0x21, -1, 0)\n"
           "    if at == 2**64 - 1: raise OSError(ctypes.get_errno(), 'refused')\n"
           "    ctypes.memset(at, 1, 2**26); libc.munmap(at + 4096, 2**26 - 4096)\n"
           "    kept.append(at); held(64 * len(kept))"),
    Attack("start 5,000 raw threads", "for n in range(5000): thread()\ntime.sleep(1)"),
    Attack("start 5,000 threads of Python", "import threading\nthreading.stack_size(2**16)\n"
           "for n in range(5000): threading.Thread(target=time.sleep, args=(60,)).start()"),
    Attack("have a thread open files of its own", "attempt(lambda: thread(0x10b00) or "
           "time.sleep(60))\nattempt(lambda: call(436, 436, 100, 200, 2) or time.sleep(60))"),
    Attack("hide from the owner", "if libc.prctl(4, 0, 0, 0, 0) < 0: print('refused')\n"
           "else: time.sleep(60)"),
    Attack("reserve 60,000 events of the kernel",
           "attempt(lambda: call(206, 0, 60000, ctypes.byref(ctypes.c_long(0))) or TOUCHED)"),
)  # fmt: skip
# Directories and links to a folder outside change places all the time. Whoever removes the
# directories and follows a name instead of an open directory, empties that folder.
RACE = Attack(
    "exchange directories with links",
    """
EXCHANGE, HERE = ctypes.c_long(2), ctypes.c_long(-100)
number = ctypes.c_long(276 if ARM else 316)
pairs = []
for n in range(30):
    os.makedirs(f'd{n}/a/b'); os.symlink(VICTIM_FOLDER, f'l{n}')
    pairs.append((f'd{n}'.encode(), f'l{n}'.encode()))
print('racing', flush=True)
while True:
    for left, right in pairs:
        libc.syscall(number, HERE, left, HERE, right, EXCHANGE)
""",
)
RACE_SECONDS = 0.6


@contextlib.contextmanager
def world() -> Iterator[World]:
    """Set the stage: secrets, sockets and a bystander; all is gone afterwards."""
    secret = f"secret-{secrets.token_hex(8)}"
    home_file = Path.home() / f".latentmas-attack-{secrets.token_hex(4)}"
    abstract = f"\0latentmas-{secrets.token_hex(4)}"
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.callback(setattr, tempfile, "tempdir", tempfile.tempdir)
        (folder / "temporary").mkdir()
        tempfile.tempdir = str(folder / "temporary")
        stack.callback(home_file.unlink, missing_ok=True)
        home_file.write_text(secret)
        stack.callback(os.environ.pop, "FAKE_SECRET", None)
        os.environ["FAKE_SECRET"] = secret
        sleeper = [sys.executable, "-S", "-c", "import time; time.sleep(600)"]
        victim = stack.enter_context(subprocess.Popen(sleeper))
        stack.callback(victim.kill)
        servers = []
        for family, kind, address in (
            (socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0)),
            (socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0)),
            (socket.AF_UNIX, socket.SOCK_STREAM, str(folder / "unix")),
            (socket.AF_UNIX, socket.SOCK_STREAM, abstract),
        ):
            server = stack.enter_context(socket.socket(family, kind))
            server.bind(address)
            server.setblocking(False)
            if kind == socket.SOCK_STREAM:
                server.listen()
            servers.append(server)
        tcp, udp, unix, nameless = servers
        made = World(folder, home_file, victim, tcp, udp, unix, nameless, secret)
        if threading.current_thread() is threading.main_thread():
            old = signal.signal(signal.SIGTERM, lambda number, _: made.signals.append(number))
            stack.callback(signal.signal, signal.SIGTERM, old)
        yield made


def run_attack(attack: Attack, tool: Tool, seconds: float) -> Result:
    """Run one attack with a tool whose time limit is `seconds`, and judge it."""
    with world() as aim:
        target = aim.target()
        target.write_text("untouched\n")
        target.chmod(0o600)
        os.utime(target, (1_000_000_000, 1_000_000_000))
        touched = f"touched-{secrets.token_hex(8)}"
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        ended = threading.Event()
        sampler = threading.Thread(target=aim.sample, args=(ended,))
        sampler.start()
        start = time.perf_counter()
        try:
            output = tool(_program(attack, aim, touched))
        finally:
            took = time.perf_counter() - start
            ended.set()
            sampler.join()
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - memory
        proofs = {
            "a secret in the output": aim.secret in output or _passwd() in output,
            "the memory was had": touched in output,
            "a message arrived": aim.arrived(),
            "a signal arrived": bool(aim.signals),
            "many processes": aim.most_processes > MOST_PROCESSES,
            "many threads": aim.most_threads > MOST_THREADS,
            "much disk or memory held": max(aim.most_disk, _held(output)) > MOST_DISK,
            "much memory here": grown > MOST_GROWTH,
            "it took too long": took > seconds + GRACE,
            "a process is left": _stays(lambda: aim.processes() > 0),
            "files are left": any((aim.folder / "temporary").iterdir()),
            "damage outside": attack.escaped(aim),
        }
    proof = "; ".join(name for name, found in proofs.items() if found)
    mild = "refused" if "refused" in output or "Error" in output else "contained"
    seen = proof or _last_line(output)
    return Result(attack.name, "ESCAPED" if proof else mild, seen, round(took, 2))


def run_race(tool: Tool, times: int) -> Result:
    """Race against the removal; `tool` must have the time limit `RACE_SECONDS`."""
    lost = ran = 0
    start = time.perf_counter()
    for _ in range(times):
        with world() as aim:
            kept = aim.folder / "kept"
            (kept / "below").mkdir(parents=True)
            (kept / "below" / "file").touch()
            kept.chmod(0o750)
            output = tool(f"VICTIM_FOLDER = {str(kept)!r}\n" + _program(RACE, aim, ""))
            ran += "racing" in output
            lost += not (kept / "below" / "file").exists() or kept.stat().st_mode & 0o777 != 0o750
            lost += any((aim.folder / "temporary").iterdir())
    outcome = "ESCAPED" if lost else "contained" if ran else "not run"
    seen = f"{lost} of {times} attempts changed a folder outside or left files; {ran} raced"
    return Result(RACE.name, outcome, seen, round(time.perf_counter() - start, 2))


def _held(output: str) -> int:
    """Bytes that an attack says it holds."""
    return max((int(number) for number in re.findall(r"held (\d+) MiB", output)), default=0) * (
        MEBIBYTE
    )


def _program(attack: Attack, aim: World, touched: str) -> str:
    names = {
        "PORT": aim.tcp.getsockname()[1],
        "UDP": aim.udp.getsockname()[1],
        "UNIX": aim.unix.getsockname(),
        "ABSTRACT": aim.abstract.getsockname(),
        "VICTIM": aim.victim.pid,
        "PARENT": os.getpid(),
        "HOME": str(aim.home_file),
        "TARGET": str(aim.target()),
        "NAME": aim.name,
        "TOUCHED": touched,
    }
    return "".join(f"{name} = {value!r}\n" for name, value in names.items()) + HELPERS + attack.code


def _passwd() -> str:
    return Path("/etc/passwd").read_text().splitlines()[0]


def _stays(found: Callable[[], bool]) -> bool:
    """Whether it is still so after a moment, which the kernel needs to clear away."""
    end = time.monotonic() + 1.0
    while found():
        if time.monotonic() > end:
            return True
        time.sleep(0.02)
    return False


def _last_line(output: str) -> str:
    line = output.strip().splitlines()[-1]
    return line if len(line) <= 60 else line[:59] + "…"


def main() -> int:
    """Run every attack and print the table."""
    parser = argparse.ArgumentParser(description="attack the tool 'python'")
    parser.add_argument("--kind", choices=KINDS, help="default: all that work here")
    parser.add_argument("--race", type=int, metavar="N", help="how often the race is run")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--tiny", action="store_true", help="limits of 2 s, and 5 races")
    options = parser.parse_args()
    kinds = [kind for kind in KINDS if options.kind in (None, kind) and working(kind)]
    if not kinds:
        print("there is no sandbox on this machine; nothing was run", file=sys.stderr)
        return 2
    seconds = 2.0 if options.tiny else 10.0
    races = options.race if options.race is not None else 5 if options.tiny else 40
    tables = {kind: attack_all(kind, seconds, races) for kind in kinds}
    if options.json:
        rows = {kind: [asdict(result) for result in table] for kind, table in tables.items()}
        print(json.dumps({"seconds": seconds, "kinds": rows}, indent=1))
    else:
        for kind, table in tables.items():
            print_table(kind, seconds, table)
    return int(any(row.outcome == "ESCAPED" for table in tables.values() for row in table))


def attack_all(kind: Kind, seconds: float, races: int) -> list[Result]:
    """Every attack on one kind of sandbox, then the race."""
    tool = python_tool(seconds=seconds, kind=kind)
    results = [run_attack(attack, tool, seconds) for attack in ATTACKS]
    return [*results, run_race(python_tool(seconds=RACE_SECONDS, kind=kind), races)]


def print_table(kind: Kind, seconds: float, table: list[Result]) -> None:
    """Print what became of each attack."""
    print(f"{kind}, time limit {seconds:g} s\n")
    print(f"{'attack':<38}{'outcome':<11}{'seconds':>7}  seen")
    for row in table:
        print(f"{row.attack:<38}{row.outcome:<11}{row.seconds:>7.2f}  {row.seen}")
    print(flush=True)


if __name__ == "__main__":
    sys.exit(main())
