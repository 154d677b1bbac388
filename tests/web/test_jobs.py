"""Jobs, and what they say of themselves after their service has ended."""

from __future__ import annotations

import threading

import pytest
from filelock import FileLock

from reidkit.web.jobs import Jobs
from reidkit.web.together import NotReady


@pytest.fixture
def jobs(tmp_path):
    jobs = Jobs(tmp_path / "jobs")
    yield jobs
    jobs.close(0.1)


def files(jobs):
    return {path.suffix for path in jobs.folder.iterdir()}


def test_a_job_whose_gallery_is_closed_under_it_was_cut_short_and_did_not_fail(jobs):
    begun, may_end, has_ended = threading.Event(), threading.Event(), threading.Event()

    def work(progress):
        begun.set()
        may_end.wait(10)
        has_ended.set()
        raise RuntimeError("the gallery is closed")

    job = jobs.start("cluster", "own", "anna", work)
    begun.wait(10)
    jobs.close(0.05)
    may_end.set()
    jobs._thread.join(10)
    assert has_ended.is_set()
    found = Jobs(jobs.folder).get(job.id)
    assert found.state == "cancelled"
    assert "start the job again" in found.error
    assert files(jobs) == {".json"}


def test_a_job_of_a_process_that_was_killed_was_cut_short_and_leaves_no_files(jobs):
    job = jobs.start("index", "own", "anna", lambda progress: "done")
    jobs.close()
    (jobs.folder / f"{job.id}.json").write_text(job.model_copy(update={"state": "running"}).model_dump_json())
    for suffix in (".lock", ".cancel"):
        (jobs.folder / f"{job.id}{suffix}").touch()
    assert Jobs(jobs.folder).get(job.id).state == "cancelled"
    assert files(jobs) == {".json"}


def test_a_job_that_waits_at_the_end_was_not_begun(jobs):
    begun, done = threading.Event(), []

    def slow(progress):
        begun.set()
        while True:
            progress(0, 1)

    first = jobs.start("index", "own", "anna", slow)
    second = jobs.start("index", "own", "anna", lambda progress: done.append(1) or "done")
    begun.wait(10)
    jobs.close(10)
    assert [jobs.get(job.id).state for job in (first, second)] == ["cancelled"] * 2
    assert not done


def test_a_service_that_ends_starts_no_job_and_keeps_no_trace_of_one(jobs):
    jobs.close()
    with pytest.raises(NotReady):
        jobs.start("index", "own", "anna", lambda progress: "done")
    assert jobs.all() == []
    assert files(jobs) == set()


def test_a_job_of_another_process_goes_on(jobs):
    job = jobs.start("index", "own", "anna", lambda progress: "done")
    jobs.close()
    (jobs.folder / f"{job.id}.json").write_text(job.model_dump_json())
    with FileLock(jobs.folder / f"{job.id}.lock"):
        assert Jobs(jobs.folder).get(job.id).state == "waiting"
