"""Job options as npm's and PyPI's bullmq store them, and jobs that nobody should have stored."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moonxd.adapters.bullmq.adding import check
from moonxd.adapters.bullmq.codec import Decoder, PackedOptions, keep_jobs, limited_traces
from moonxd.adapters.bullmq.options import Malformed, decode_options, encode_options
from moonxd.domain.errors import Permanent
from moonxd.domain.job import Backoff, Job, JobOptions, Keep, NewJob, Parent

NONE = JobOptions()
anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(-1e300, 1e300) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
KNOWN = (
    "attempts",
    "backoff",
    "priority",
    "delay",
    "lifo",
    "removeOnComplete",
    "removeOnFail",
    "stackTraceLimit",
    "kl",
)


@pytest.mark.parametrize(
    ("stored", "wanted"),
    [
        ({}, NONE),
        ({"attempts": 0}, NONE),  # what npm stores when the producer said nothing
        ({"attempts": 3, "priority": 5, "delay": 10.5}, JobOptions(attempts=3, priority=5, delay=10)),
        ({"backoff": 700}, JobOptions(backoff=Backoff("fixed", 700))),
        ({"backoff": {"type": "exponential", "delay": 20}}, JobOptions(backoff=Backoff("exponential", 20))),
        ({"backoff": {"type": "fixed", "delay": 9, "jitter": 0.5}}, JobOptions(backoff=Backoff("fixed", 9, 0.5))),
        ({"backoff": {"type": "own"}}, JobOptions(backoff=Backoff("own", 0))),
        ({"removeOnComplete": True}, JobOptions(remove_on_complete=Keep(count=0))),
        ({"removeOnComplete": False}, JobOptions(remove_on_complete=Keep())),
        ({"removeOnFail": 7}, JobOptions(remove_on_fail=Keep(count=7))),
        ({"removeOnFail": -1}, JobOptions(remove_on_fail=Keep())),
        ({"removeOnFail": {"age": 60, "count": 5, "limit": 9}}, JobOptions(remove_on_fail=Keep(5, 60, 9))),
        ({"lifo": True, "stackTraceLimit": 0, "kl": 5}, JobOptions(lifo=True, stack_limit=0, keep_logs=5)),
    ],
)  # fmt: skip
def test_stored_forms(stored: dict[str, object], wanted: JobOptions) -> None:
    found = decode_options(msgspec.json.encode(stored), NONE)
    assert msgspec.structs.replace(found, raw={}) == wanted
    assert found.raw == stored


@pytest.mark.parametrize(
    ("text", "word"),
    [(b"{", "JSON"), (b"[]", "object"), (b'{"attempts":"3"}', "attempts"), (b'{"backoff":"x"}', "backoff"),
     (b'{"removeOnFail":"x"}', "removeOnFail"), (b'{"backoff":{"type":5}}', "backoff"), (b"\xff", "JSON")],
)  # fmt: skip
def test_what_cannot_be_read_says_why(text: bytes, word: str) -> None:
    with pytest.raises(Malformed, match=word):
        decode_options(text, NONE)


@given(st.dictionaries(st.sampled_from(KNOWN), anything, max_size=4), anything, anything)
def test_no_stored_job_is_more_than_doomed(options: dict[str, object], data: object, number: object) -> None:
    encode = msgspec.json.encode
    flat = [b"name", b"n", b"data", encode(data), b"opts", encode(options), b"timestamp", encode(number), b"ats", b"1"]
    job = Decoder("q", NONE).job("1", flat, "t")
    assert job.id == "1"
    assert job.doomed is None or "cannot be read" in job.doomed


def test_options_survive_being_stored() -> None:
    options = JobOptions(
        attempts=4,
        backoff=Backoff("exponential", 50, 0.25, 3.0),
        priority=2,
        lifo=True,
        remove_on_complete=Keep(count=5, age_s=60),
        remove_on_fail=Keep(),
        stack_limit=3,
        keep_logs=8,
    )
    stored = encode_options(NewJob(name="n", data=None, options=options), NONE)
    assert msgspec.structs.replace(decode_options(msgspec.json.encode(stored), NONE), raw={}) == options


def test_a_dead_letter_keeps_every_option_but_those_of_its_addition() -> None:
    raw = {"attempts": 7, "custom": {"x": 1}, "delay": 500, "jobId": "old", "timestamp": 5, "fpof": True, "priority": 4}
    stored = encode_options(NewJob(name="n", data=None, options=JobOptions(raw=raw)), JobOptions(attempts=3))
    assert stored == {"attempts": 7, "custom": {"x": 1}, "priority": 4}


def test_a_parent_is_told_what_its_childs_failure_means() -> None:
    job = NewJob(name="n", data=None, parent=Parent("7", "bull:parents", "fail"))
    stored = encode_options(job, NONE)
    assert stored["parent"] == {"id": "7", "queue": "bull:parents"}
    assert stored["fpof"] is True


@pytest.mark.parametrize(
    ("job", "word"),
    [
        (NewJob(name="n", data=1, id="12"), "number"),
        (NewJob(name="n", data=1, id=""), "empty"),
        (NewJob(name="n", data=1, id="a:b"), "three parts"),
        (NewJob(name="n", data=1, options=JobOptions(priority=-1)), "out of range"),
        (NewJob(name="n", data=1, options=JobOptions(priority=2**21)), "out of range"),
        (NewJob(name="n", data=1, options=JobOptions(delay=-1)), "negative"),
        (NewJob(name="n", data=1, deduplication_id="d", parent=Parent("1", "q")), "flow"),
    ],
)  # fmt: skip
def test_what_bullmq_would_refuse_is_refused_before_anything_is_added(job: NewJob, word: str) -> None:
    with pytest.raises(Permanent, match=word):
        check(job)
    check(NewJob(name="n", data=1, id="a:b:c"))


@pytest.mark.parametrize(
    ("keep", "packed"),
    [(None, {"count": -1}), (Keep(), {"count": -1}), (Keep(count=0), {"count": 0}), (Keep(age_s=5), {"age": 5}),
     (Keep(3, 5, 9), {"count": 3, "age": 5, "limit": 9})],
)  # fmt: skip
def test_what_stays_in_the_scripts_words(keep: Keep | None, packed: dict[str, int]) -> None:
    assert keep_jobs(keep) == packed


def test_packed_options_are_one_map() -> None:
    packed = PackedOptions(worker_name="w", lock_ms=30_000, limiter=(5, 1000))
    assert msgspec.msgpack.decode(packed.claim("t" * 40)) == {
        "name": "w",
        "lockDuration": 30_000,
        "limiter": {"max": 5, "duration": 1000},
        "token": "t" * 40,
    }
    finish = msgspec.msgpack.decode(packed.finish("t", Keep(count=2), None))
    assert (finish["keepJobs"], finish["attempts"], finish["token"]) == ({"count": 2}, 1, "t")


def test_traces_are_cut_to_the_jobs_limit() -> None:
    def job(limit: int | None) -> Job:
        options = JobOptions(stack_limit=limit)
        return Job(queue="q", id="1", name="n", data=b"1", options=options, timestamp=0, stack=("a", "b"))

    assert limited_traces(job(None), ("c",)) == ("a", "b", "c")
    assert limited_traces(job(2), ("c",)) == ("b", "c")
    assert limited_traces(job(0), ("c",)) == ()


def test_a_job_of_a_scheduler_is_run_and_said_to_be_the_last(caplog: pytest.LogCaptureFixture) -> None:
    decoder = Decoder("q", NONE)
    for _ in range(2):
        job = decoder.job("1", [b"name", b"n", b"data", b"1", b"rjk", b"every-minute"], "t")
        assert job.doomed is None
    assert [record.message for record in caplog.records if "every-minute" in record.message][1:] == []
