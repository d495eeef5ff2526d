"""Schedules as values (section 6)."""

from __future__ import annotations

from typing import Any

import pytest

from datatailr import Schedule, Workflow

WORKDAYS = ["mon", "tue", "wed", "thu", "fri"]
DAYS = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]
ROWS: list[tuple[dict[str, Any], str]] = [
    ({}, ""),
    ({"at_minutes": [0]}, "0 0 * * * *"),
    ({"at_minutes": [0, 30]}, "0 0,30 * * * *"),
    ({"every_minute": 5}, "0 */5 * * * *"),
    ({"every_minute": 1}, "0 */1 * * * *"),
    ({"every_minute": 59}, "0 */59 * * * *"),
    ({"at_hours": [0]}, "0 0 0 * * *"),
    ({"at_hours": 0}, "0 0 0 * * *"),
    ({"at_hours": [8, 16], "weekdays": WORKDAYS}, "0 0 8,16 * * 1,2,3,4,5"),
    ({"at_hours": [0, 6, 12, 18]}, "0 0 0,6,12,18 * * *"),
    ({"every_hour": 2}, "0 0 */2 * * *"),
    ({"every_hour": 1}, "0 0 */1 * * *"),
    ({"every_hour": 23}, "0 0 */23 * * *"),
    ({"at_minutes": [15], "at_hours": [10, 22]}, "0 15 10,22 * * *"),
    ({"every_minute": 15, "weekdays": ["Mon", "Fri"]}, "0 */15 * * * 1,5"),
    ({"every_minute": 10, "at_hours": [9]}, "0 */10 9 * * *"),
    ({"at_minutes": [5, 35], "every_hour": 3}, "0 5,35 */3 * * *"),
    ({"every_minute": 20, "every_hour": 6}, "0 */20 */6 * * *"),
    ({"weekdays": ["Sun"]}, "0 0 0 * * 7"),
    ({"weekdays": ["Mon", "Wed", "Fri"]}, "0 0 0 * * 1,3,5"),
    ({"weekdays": ["Sun", "Mon"]}, "0 0 0 * * 1,7"),
    ({"weekdays": ["friday", "MONDAY"]}, "0 0 0 * * 1,5"),
    ({"weekdays": DAYS}, "0 0 0 * * 1,2,3,4,5,6,7"),
    ({"every_hour": 4, "weekdays": ["Sat", "Sun"]}, "0 0 */4 * * 6,7"),
    ({"day_of_month": 1}, "0 0 0 1 * *"),
    ({"day_of_month": 31}, "0 0 0 31 * *"),
    ({"day_of_month": 15, "in_month": ["Jan", "Jul"]}, "0 0 0 15 1,7 *"),
    ({"day_of_month": 1, "weekdays": ["Mon"]}, "0 0 0 1 * 1"),
    ({"at_hours": [6], "day_of_month": 1}, "0 0 6 1 * *"),
    ({"at_minutes": [30], "day_of_month": 1}, "0 30 * 1 * *"),
    ({"in_month": ["Jan"]}, "0 0 0 1 1 *"),
    ({"in_month": ["dec", "Jan"]}, "0 0 0 1 1,12 *"),
    ({"in_month": ["september"]}, "0 0 0 1 9 *"),
    ({"every_month": 3}, "0 0 0 1 */3 *"),
    ({"every_month": 1}, "0 0 0 1 */1 *"),
    ({"every_month": 2, "day_of_month": 10}, "0 0 0 10 */2 *"),
    ({"at_hours": [6], "in_month": ["Dec"]}, "0 0 6 * 12 *"),
    ({"weekdays": ["Sat"], "in_month": ["Jun"]}, "0 0 0 * 6 6"),
    ({"every_month": 12, "at_hours": [1]}, "0 0 1 * */12 *"),
    ({"at_minutes": [59], "at_hours": [23], "day_of_month": 28, "in_month": ["Feb"]}, "0 59 23 28 2 *"),
    ({"every_minute": 7, "at_hours": [0], "day_of_month": 1, "every_month": 6}, "0 */7 0 1 */6 *"),
    (
        {
            "at_minutes": [0, 15, 30, 45],
            "at_hours": [0, 12],
            "weekdays": ["Mon", "Wed", "Fri"],
            "day_of_month": 15,
            "in_month": ["Jan", "Jul"],
        },
        "0 0,15,30,45 0,12 15 1,7 1,3,5",
    ),
    (
        {"in_month": ["Jul"], "weekdays": ["Sun"], "every_minute": [24], "at_hours": [2, 15]},
        "0 */24 2,15 * 7 7",
    ),
    ({"at_minutes": [0, 30], "weekdays": ["Mon", "Wed", "Fri"]}, "0 0,30 * * * 1,3,5"),
    ({"at_minutes": [30, 0, 30]}, "0 0,30 * * * *"),
    ({"at_hours": [16, 8]}, "0 0 8,16 * * *"),
    ({"at_hours": [9], "timezone": "America/New_York"}, "0 0 9 * * *"),
    ({"cron_expression": "0 */2 * * *"}, "0 */2 * * *"),
    ({"cron_expression": "15 0 */2 * * *"}, "15 0 */2 * * *"),
    ({"cron_expression": " 0 3 * * 1 "}, "0 3 * * 1"),
    ({"cron_expression": "0 */2 * * *", "at_hours": [3]}, "0 0 3 * * *"),
    ({"cron_expression": "0 */2 * * *", "timezone": "UTC"}, "0 */2 * * *"),
    ({"run_after_job_name": "Load Prices"}, ""),
    ({"run_after_job_name": "Load Prices", "run_after_job_condition": "success"}, ""),
    (
        {
            "run_after_job_uuid": "123e4567-e89b-12d3-a456-426614174000",
            "run_after_job_condition": "on failure",
        },
        "",
    ),
    ({"at_hours": [7], "run_after_job_name": "load-prices"}, "0 0 7 * * *"),
]
BAD: list[dict[str, Any]] = [
    {"at_minutes": [60]},
    {"at_minutes": [-1]},
    {"at_minutes": []},
    {"at_minutes": ["5"]},
    {"at_minutes": True},
    {"every_minute": 0},
    {"every_minute": 60},
    {"every_minute": [5, 10]},
    {"at_hours": [24]},
    {"every_hour": 0},
    {"every_hour": 24},
    {"day_of_month": 0},
    {"day_of_month": 32},
    {"in_month": ["Foo"]},
    {"in_month": [1]},
    {"in_month": "Jan"},
    {"every_month": 0},
    {"every_month": 13},
    {"weekdays": ["Mo"]},
    {"weekdays": ["Xyz"]},
    {"weekdays": "Mon"},
    {"weekdays": [1]},
    {"at_minutes": [0], "every_minute": 5},
    {"at_hours": [0], "every_hour": 2},
    {"in_month": ["Jan"], "every_month": 2},
    {"timezone": "Mars/Base"},
    {"cron_expression": "* * *"},
    {"run_after_job_condition": "success"},
    {"run_after_job_name": "x", "run_after_job_condition": "maybe"},
]


@pytest.mark.clause("B76", "B77", "B78", "B79", "B80", "B81", "B82", "B83")
@pytest.mark.parametrize(("fields", "cron"), ROWS, ids=[str(row[0]) for row in ROWS])
def test_cron_strings(fields: dict[str, Any], cron: str) -> None:
    schedule = Schedule(**fields)
    assert schedule.get_cron_string() == cron
    assert str(schedule) == cron


@pytest.mark.clause("B85", "B86", "B87", "B91")
@pytest.mark.parametrize("fields", BAD, ids=str)
def test_bad_values(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Schedule(**fields)


@pytest.mark.clause("B84", "B86")
def test_attributes_can_be_changed_and_are_checked() -> None:
    schedule = Schedule(at_hours=[8])
    schedule.at_hours = [9]
    assert schedule.get_cron_string() == "0 0 9 * * *"
    with pytest.raises(ValueError, match="at_hours"):
        schedule.at_hours = [25]
    assert schedule.get_cron_string() == "0 0 9 * * *"
    schedule.at_hours.append(99)
    with pytest.raises(ValueError, match="99"):
        schedule.get_cron_string()
    schedule.at_hours = [1]
    schedule.every_hour = 2
    with pytest.raises(ValueError, match="exclude"):
        schedule.get_cron_string()


@pytest.mark.clause("B83")
def test_an_empty_schedule_counts_as_none() -> None:
    assert Schedule().is_empty()
    assert not Schedule(run_after_job_name="x").is_empty()
    assert not Schedule(every_minute=5).is_empty()
    assert Workflow("x", schedule=Schedule()).to_dict()["schedule"] is None
    Workflow("x", schedule=Schedule(), local_run=True)


@pytest.mark.clause("B90", "B91")
@pytest.mark.parametrize(
    ("given", "meaning"),
    [
        (None, "success"),
        ("completed", "success"),
        ("On Success", "success"),
        ("on failed", "failure"),
        ("FAILURE", "failure"),
        ("always", "any"),
        ("finished", "any"),
    ],
)
def test_conditions(given: str | None, meaning: str) -> None:
    schedule = Schedule(run_after_job_name="x", run_after_job_condition=given)
    assert schedule.request(schedule.get_schedule_args()).run_after_job_condition == meaning


@pytest.mark.clause("B75")
def test_schedule_arguments() -> None:
    schedule = Schedule(at_minutes=[0, 30], weekdays=["Mon", "Fri"], timezone="UTC", run_after_job_name="x")
    assert Workflow("x", schedule=schedule).get_schedule_args() == {
        "at_minutes": "0,30",
        "weekdays": "Mon,Fri",
        "timezone": "UTC",
        "run_after_job_name": "x",
    }
    assert Workflow("x").get_schedule_args() == {}


@pytest.mark.clause("B74", "B112")
def test_a_schedule_comes_back_from_its_arguments() -> None:
    schedule = Schedule(at_minutes=[0, 30], every_hour=2, weekdays=["Mon"], timezone="Europe/Paris")
    loaded = Schedule.from_platform(schedule.get_cron_string(), schedule.get_schedule_args())
    assert loaded == schedule
    raw = Schedule.from_platform("0 3 * * 1", {})
    assert raw is not None
    assert raw.get_cron_string() == "0 3 * * 1"
    assert Schedule.from_platform(None, {}) is None
