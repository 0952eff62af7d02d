"""The settings of glibc's heap, in processes of their own: they cannot be taken back."""

import ctypes
import platform
import subprocess
import sys

import pytest

from unbraid.heap import keep_heap, share_heap

_FAULTS = """
import resource, sys, torch
from unbraid.heap import keep_heap
if sys.argv[1] == "kept":
    assert keep_heap()
def faults():
    torch.ones(16 << 20).sum()  # 64 MiB, more than a threshold of glibc can be set to
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
# A heap grows until every buffer finds a gap that it fits in, alignment included.
*_, before = (faults() for _ in range(32))
*_, after = (faults() for _ in range(8))
print(after - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these settings")
def test_a_heap_that_is_kept_does_not_go_back_to_the_system() -> None:
    faults = {
        setting: int(subprocess.check_output([sys.executable, "-c", _FAULTS, setting]))
        for setting in ("default", "kept")
    }
    assert faults["kept"] < 0.05 * faults["default"]


@pytest.mark.parametrize("library", ["", "musl"])
def test_other_c_libraries_are_left_alone(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: (library, ""))
    monkeypatch.delattr(ctypes, "CDLL")
    assert not keep_heap()
    assert not share_heap()


_HEAPS = """
import ctypes, os, sys, tempfile, threading
from unbraid.heap import share_heap
if sys.argv[1] == "shared":
    assert share_heap()
library = ctypes.CDLL(None)
library.malloc.restype = ctypes.c_void_p
library.fopen.restype = ctypes.c_void_p
everyone = threading.Barrier(4)
def take():
    library.malloc(1000)
    everyone.wait()
threads = [threading.Thread(target=take) for _ in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "info.xml")
    file = ctypes.c_void_p(library.fopen(path.encode(), b"w"))
    library.malloc_info(0, file)
    library.fclose(file)
    print(open(path).read().count("<heap nr="))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these settings")
def test_threads_that_share_a_heap_have_no_other() -> None:
    heaps = {
        setting: int(subprocess.check_output([sys.executable, "-c", _HEAPS, setting]))
        for setting in ("default", "shared")
    }
    assert heaps["shared"] == 1 < heaps["default"]
