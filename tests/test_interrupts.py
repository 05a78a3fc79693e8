"""A signal is never lost, wherever it comes, and never tears apart what must be whole."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

BEGIN = """
import os, signal, sys, time
from harness import interrupts
interrupts.install()
def tell(): os.kill(os.getpid(), signal.SIGTERM)
"""
PLACES = {
    "here": "tell()",
    "a destructor": "class D:\n    def __del__(self): tell(); time.sleep(0.1)\nD()",
    "a weak reference's callback": (
        "import weakref\nclass D: pass\nd = D(); s = weakref.WeakSet([d]); r = weakref.finalize(d, tell)\ndel d"
    ),
    "exec of a text": "exec('tell(); time.sleep(0.1)', {'tell': tell, 'time': time, '__name__': 'x'})",
    "asyncio": (
        "import asyncio\nasync def f():\n    asyncio.get_running_loop().call_soon(tell)\n    await asyncio.sleep(0.2)\n"
        "asyncio.run(f())"
    ),
    "a block that is held back": (
        "with interrupts.held_back():\n    tell(); time.sleep(0.1); print('whole', flush=True)\n"
        "    assert interrupts.waiting()"
    ),
    "a block that is held back and fails": (
        "try:\n    with interrupts.held_back():\n        tell()\n        raise ValueError\n"
        "except ValueError:\n    print('whole', flush=True)"
    ),
    "a lock held by a look at a process": (
        "import subprocess\np = subprocess.Popen(['sleep', '0.2'])\nlock = p._waitpid_lock\nclass Lock:\n"
        "    release = lock.release\n    def acquire(self, wait):\n        lock.acquire(wait); tell(); return True\n"
        "p._waitpid_lock = Lock()\ntry: p.poll()\nfinally:\n    p._waitpid_lock = lock\n"
        "    print('torn' if lock.locked() else 'whole', flush=True)\np.wait()"
    ),
    "held back twice": (
        "with interrupts.held_back():\n    with interrupts.held_back(): tell()\n    print('whole', flush=True)"
    ),
}


@pytest.mark.parametrize("place", list(PLACES))
def test_a_signal_ends_the_program_wherever_it_comes(place: str) -> None:
    """As KeyboardInterrupt, once, at the next place that can hear it; nothing is printed and lost."""
    body = "".join(f"    {line}\n" for line in PLACES[place].splitlines())
    script = f"{BEGIN}try:\n{body}    time.sleep(5)\n    print('lost')\nexcept KeyboardInterrupt:\n    print('told')\n"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert ended.stdout.split()[-1:] == ["told"], ended
    assert "whole" in ended.stdout or "held" not in place
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_second_signal_is_another_one() -> None:
    """While the first is being followed."""
    script = f"""{BEGIN}
for _ in range(2):
    try:
        tell()
        time.sleep(5)
    except KeyboardInterrupt:
        print("told")
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert ended.stdout.split() == ["told", "told"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_after_the_end_changes_nothing(number: signal.Signals) -> None:
    """While Python takes its modules down, when its handlers are gone already: the command's own exit code stands."""
    program = (
        "import os, signal, sys\n"
        "from harness import interrupts\n"
        "interrupts.install()\n"
        "class Late:\n"
        f"    def __del__(self, kill=os.kill, me=os.getpid()): kill(me, {int(number)})\n"
        "late = Late()\n"
        "sys.exit(3)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 3


def test_the_exit_code_outlives_what_libraries_do_at_the_end() -> None:
    """A destructor that aborts is not called any more; what was registered for the end is, and all is written."""
    program = (
        "import atexit, os, sys\n"
        "import harness.cli\n"
        "from harness.__main__ import main\n"
        "class Late:\n"
        "    def __del__(self, abort=os.abort): abort()\n"
        "late = Late()\n"
        "atexit.register(lambda: sys.stdout.write('over'))\n"
        "harness.cli.run = lambda arguments: sys.stdout.write('done, ') * 0 + 3\n"
        "main()\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (3, "done, over"), ended
