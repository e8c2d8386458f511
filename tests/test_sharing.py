"""How tests share a machine: which files come first, and who runs alone."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

from tests import sharing

TESTS = Path(__file__).parent


def test_the_long_files_are_there() -> None:
    assert [path for path in sharing.PLACES if not path.is_file()] == []
    assert (
        sharing.place(TESTS / "test_waits.py") == len(sharing.LONG) > sharing.place(TESTS / sharing.LONG[-1])
    )


def test_a_long_file_comes_before_one_of_many_tests(tmp_path: Path) -> None:
    """xdist's own order is by the number of tests: what takes five minutes in one test came last."""
    (tmp_path / "conftest.py").write_text(
        "import pathlib\nfrom tests import sharing\n"
        "from tests.conftest import pytest_collection_modifyitems, pytest_configure\n"
        f"sharing.PLACES = {{pathlib.Path({str(tmp_path / 'test_z.py')!r}): 0}}\n"
    )
    note = f"open({str(tmp_path / 'order')!r}, 'a').write(__file__[-4])\n"
    for name, count in (("a", 9), ("z", 1)):
        tests = [f"def test_{n}():\n    {note}" for n in range(count)]
        (tmp_path / f"test_{name}.py").write_text("\n".join(tests))
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-qpno:nbval",
        "-n",
        "1",
        "--dist",
        "loadfile",
        f"--rootdir={tmp_path}",
    ]
    done = subprocess.run(
        [*command, "-c", "/dev/null", str(tmp_path)], cwd=TESTS.parent, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "order").read_text() == "z" + "a" * 9


def test_who_is_alone_waits_for_the_others_and_they_wait_for_it(tmp_path: Path) -> None:
    order, first_is_in, alone_waits = list[str](), threading.Event(), threading.Event()

    def beside() -> None:
        with sharing.turn(tmp_path, alone=False):
            first_is_in.set()
            alone_waits.wait(30)
            order.append("beside")

    def alone() -> None:
        with sharing.turn(tmp_path, alone=True):
            order.append("alone")

    threads = [threading.Thread(target=beside), threading.Thread(target=alone)]
    threads[0].start()
    assert first_is_in.wait(30)
    threads[1].start()
    alone_waits.set()
    for thread in threads:
        thread.join(30)
    assert order == ["beside", "alone"]
