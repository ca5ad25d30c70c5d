"""The journal under concurrency, damage, kills and a full disk."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from backend.journal import Journal, JournalFull, JournalInUse, state_folder
from backend.journal_file import VERSION

ROOT = Path(__file__).resolve().parents[1]


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Start a Python process of its own on a few lines of code, with stdin and stdout as pipes."""
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite"


def test_events_come_in_order_and_only_after_the_last_seen(path: Path) -> None:
    with Journal(path) as journal:
        job = journal.submit("race", {"n": 1}, owner="me")
        other = journal.submit("race", {})
        journal.append(job, [("a", None, {"x": 1}), ("b", "base", {"x": 2})])
        journal.append(other, [("elsewhere", None, {})])
        journal.append(job, [("c", "A", {"x": 3})])
        seen = journal.events(job)
        assert [(e.kind, e.lane, e.data["x"]) for e in seen] == [("a", None, 1), ("b", "base", 2), ("c", "A", 3)]
        assert [e.kind for e in journal.events(job, after=seen[1].id)] == ["c"]
        assert journal.events(job, after=seen[2].id) == []
    with Journal(path) as again:
        assert again.set_aside is None
        assert again.job(job).spec == {"n": 1}
        assert again.job(job).owner == "me"


def test_two_processes_never_claim_the_same_job(path: Path) -> None:
    with Journal(path) as journal:
        jobs = {journal.submit("race", {}) for _ in range(60)}
    claim_all = """
        import sys; from pathlib import Path; from backend.journal import Journal
        journal = Journal(Path(sys.argv[1])); print("open", flush=True); sys.stdin.readline()
        while job := journal.claim(sys.argv[2], "race"): print(job.id, flush=True)
    """
    workers = [python(claim_all, path, name) for name in ("one", "two")]
    for worker in workers:
        assert worker.stdout.readline() == "open\n"
    outputs = []
    for worker in workers:
        worker.stdin.write("\n")
        worker.stdin.flush()
    for worker in workers:
        outputs.append([int(line) for line in worker.communicate(timeout=60)[0].split()])
    assert sorted(outputs[0] + outputs[1]) == sorted(jobs)
    with Journal(path) as journal:
        assert {job.state for job in journal.jobs()} == {"running"}


def test_a_claim_takes_the_oldest_of_its_kind(path: Path) -> None:
    with Journal(path) as journal:
        fetch, first, second = (journal.submit(kind, {}) for kind in ("fetch", "race", "race"))
        assert journal.claim("w", "race").id == first
        assert journal.claim("w", "fetch").id == fetch
        assert journal.claim("w", "race").id == second
        assert journal.claim("w", "race") is None


def test_place_counts_unfinished_jobs_of_the_same_kind(path: Path) -> None:
    with Journal(path) as journal:
        journal.submit("fetch", {})
        first, second, third = (journal.submit("race", {}) for _ in range(3))
        journal.claim("w", "race")
        assert [journal.place(job) for job in (first, second, third)] == [0, 1, 2]
        journal.finish(first, "finished")
        journal.cancel(second)
        assert journal.place(third) == 0


def test_cancel_ends_a_queued_job_and_asks_a_running_one(path: Path) -> None:
    with Journal(path) as journal:
        running, queued = journal.submit("race", {}), journal.submit("race", {})
        journal.claim("w", "race")
        journal.cancel(running)
        journal.cancel(queued)
        assert journal.job(queued).state == "cancelled"
        assert journal.job(queued).ended
        assert journal.job(queued).finished is not None
        assert journal.job(running).state == "running"
        assert journal.cancelled(running)
        assert journal.claim("w", "race") is None
        journal.finish(running, "cancelled")
        assert journal.job(running).ended


def test_jobs_filters_by_kind_and_state_newest_first(path: Path) -> None:
    with Journal(path) as journal:
        ids = [journal.submit("race", {}) for _ in range(3)]
        journal.submit("fetch", {})
        journal.claim("w", "race")
        assert [job.id for job in journal.jobs("race")] == ids[::-1]
        assert [job.id for job in journal.jobs("race", states=("queued",))] == ids[:0:-1]
        assert [job.id for job in journal.jobs("race", limit=1)] == [ids[2]]


def test_a_worker_is_known_while_it_beats(path: Path) -> None:
    with Journal(path) as journal:
        assert journal.workers() == []
        journal.beat("w", 1)
        assert journal.workers() == ["w"]
        journal.leave("w")
        assert journal.workers() == []
        journal.beat("old", 1)
        journal.db.execute("UPDATE workers SET at=at-60")
        assert journal.workers() == []


def test_orphans_fail_with_a_card_and_keep_what_they_measured(path: Path) -> None:
    with Journal(path) as journal:
        lost, kept = journal.submit("race", {}), journal.submit("race", {})
        journal.claim("dead", "race")
        journal.claim("alive", "race")
        journal.append(lost, [("tokens", "base", {"ids": [1]})])
        assert journal.fail_orphans(alive=("alive",)) == [lost]
        assert journal.fail_orphans(alive=("alive",)) == []
        assert [e.kind for e in journal.events(lost)] == ["tokens", "failed"]
        assert journal.events(lost)[-1].data["card"]["remedy"]
        assert journal.job(lost).state == "failed"
        assert journal.job(kept).state == "running"


def _newer(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE of_the_future (x)")
        db.execute(f"PRAGMA user_version={VERSION + 1}")
    db.close()


def _garbage(path: Path) -> None:
    path.write_bytes(b"this is no database " * 500)


def _foreign(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE recipes_of_grandmother (x)")
    db.close()


def _truncated(path: Path) -> None:
    with Journal(path) as journal:
        job = journal.submit("race", {})
        journal.append(job, [("a", None, {"x": "y" * 1000}) for _ in range(100)])
        journal.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _holed(path: Path) -> None:
    """A page deep inside is overwritten: opening does not touch it."""
    with Journal(path) as journal:
        job = journal.submit("race", {})
        journal.append(job, [("a", None, {"x": "y" * 1000}) for _ in range(100)])
    data = bytearray(path.read_bytes())
    data[40_000:60_000] = b"\xff" * 20_000
    path.write_bytes(data)


@pytest.mark.parametrize("spoil", [_newer, _garbage, _foreign, _truncated, _holed])
def test_an_unusable_file_is_set_aside_whole_and_a_fresh_one_begun(path: Path, spoil) -> None:
    spoil(path)
    before = path.read_bytes()
    with Journal(path, check=True) as journal:
        assert journal.set_aside is not None
        assert journal.set_aside.read_bytes() == before
        assert journal.jobs() == []
        assert journal.submit("race", {}) == 1
    with Journal(path, check=True) as again:
        assert again.set_aside is None
        assert len(again.jobs()) == 1


def test_two_processes_set_a_damaged_file_aside_once(path: Path) -> None:
    _garbage(path)
    code = """
        import sys; from pathlib import Path; from backend.journal import Journal
        sys.stdin.readline(); journal = Journal(Path(sys.argv[1])); print(journal.submit("race", {}), flush=True)
    """
    processes = [python(code, path) for _ in range(4)]
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    jobs = [int(process.communicate(timeout=60)[0]) for process in processes]
    assert sorted(jobs) == [1, 2, 3, 4]
    assert len(list(path.parent.glob("*.set-aside-*.sqlite"))) == 1


def test_a_newer_file_in_use_is_left_where_it_is(path: Path) -> None:
    _newer(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("PRAGMA journal_mode=WAL")
    other.execute("INSERT INTO of_the_future VALUES (1)")
    with pytest.raises(JournalInUse, match="stop that one first"):
        Journal(path)
    assert other.execute("SELECT x FROM of_the_future").fetchall() == [(1,)]
    assert list(path.parent.glob("*.set-aside-*")) == []
    other.close()


def test_many_processes_open_a_fresh_file_at_once(path: Path) -> None:
    code = """
        import sys; from pathlib import Path; from backend.journal import Journal
        sys.stdin.readline(); journal = Journal(Path(sys.argv[1])); print(journal.set_aside, flush=True)
        journal.submit("race", {})
    """
    processes = [python(code, path) for _ in range(5)]
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    assert [process.communicate(timeout=60)[0] for process in processes] == ["None\n"] * 5
    with Journal(path) as journal:
        assert len(journal.jobs()) == 5


def test_reading_and_opening_do_not_wait_for_a_writer(path: Path) -> None:
    with Journal(path) as journal, Journal(path) as reader:
        job = journal.submit("race", {})
        journal.db.execute("BEGIN IMMEDIATE")
        journal.db.execute("UPDATE jobs SET state='running'")
        reader.db.execute("PRAGMA busy_timeout=0")
        assert reader.job(job).state == "queued"
        with Journal(path) as late:
            assert late.set_aside is None
            assert late.events(job) == []
        journal.db.execute("COMMIT")
        assert reader.job(job).state == "running"


def test_a_writer_killed_in_mid_transaction_loses_nothing_committed(path: Path) -> None:
    code = """
        import sys; from pathlib import Path; from backend.journal import Journal
        journal = Journal(Path(sys.argv[1])); job = journal.submit("race", {})
        for n in range(50): journal.append(job, [("kept", None, {"n": n})])
        journal.db.execute("BEGIN IMMEDIATE")
        journal.db.execute("INSERT INTO events (job, at, kind, data) VALUES (?, 0, 'half', '{}')", (job,))
        print("written", flush=True); sys.stdin.readline()
    """
    writer = python(code, path)
    assert writer.stdout.readline() == "written\n"
    os.kill(writer.pid, signal.SIGKILL)
    writer.communicate()
    with Journal(path, check=True) as journal:
        assert journal.set_aside is None
        assert [e.data["n"] for e in journal.events(1)] == list(range(50))
        journal.append(1, [("after", None, {})])
        assert journal.events(1)[-1].kind == "after"


def test_a_full_file_is_said_and_keeps_what_it_has(path: Path) -> None:
    with Journal(path) as journal:
        job = journal.submit("race", {})
        journal.append(job, [("kept", None, {})])
        pages = journal.db.execute("PRAGMA page_count").fetchone()[0]
        journal.db.execute(f"PRAGMA max_page_count={pages}")
        with pytest.raises(JournalFull):
            journal.append(job, [("lost", None, {"x": "y" * 100_000})])
        assert [e.kind for e in journal.events(job)] == ["kept"]
        journal.db.execute("PRAGMA max_page_count=1000000")
        journal.append(job, [("after", None, {})])
        assert [e.kind for e in journal.events(job)] == ["kept", "after"]


def test_a_full_disk_is_said_and_keeps_what_it_has(path: Path) -> None:
    code = """
        import resource, sys; from pathlib import Path; from backend.journal import Journal, JournalFull
        journal = Journal(Path(sys.argv[1])); job = journal.submit("race", {})
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
        n = 0
        try:
            while True: journal.append(job, [("kept", None, {"x": "y" * 10_000})]); n += 1
        except JournalFull: print(n, flush=True)
    """
    output, _ = python(code, path).communicate(timeout=60)
    written = int(output)
    with Journal(path, check=True) as journal:
        assert journal.set_aside is None
        assert len(journal.events(1)) == written > 5


def test_the_state_folder_is_where_headway_home_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWAY_HOME", str(tmp_path / "deep" / "home"))
    with Journal() as journal:
        journal.submit("race", {})
    assert state_folder() == tmp_path / "deep" / "home"
    assert (state_folder() / "journal.sqlite").stat().st_size > 0


def test_the_reserve_makes_room_for_the_last_words(path: Path) -> None:
    with Journal(path) as journal:
        reserve = path.with_name("journal.sqlite.reserve")
        assert reserve.stat().st_blocks * 512 >= 256 * 1024
        journal.use_reserve()
        assert not reserve.exists()
        journal.use_reserve()
    with Journal(path):
        assert reserve.exists()


def test_the_last_event_of_a_kind_is_found_without_the_others(path: Path) -> None:
    with Journal(path) as journal:
        job, other = journal.submit("race", {}), journal.submit("race", {})
        journal.append(job, [("verdict", None, {"n": 1}), ("verdict", None, {"n": 2}), ("finished", None, {})])
        journal.append(other, [("verdict", None, {"n": 3})])
        assert journal.last(job, "verdict").data == {"n": 2}
        assert journal.last(job, "failed") is None
