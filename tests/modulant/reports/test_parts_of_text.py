"""Loss by parts of a text: what the tables and the charts hold."""

from typing import Any

import pytest

from modulant.reports.run import parts_of_text

UNIGRAM = [4.0, 5.0, *[None] * 8]


def report_of(stage: str, **metrics: Any) -> dict[str, Any]:
    about = {"by_frequency": {"share": [0.75, 0.25, *[0.0] * 8], "unigram": UNIGRAM}}
    run = {"stage": stage, "steps": 9, "metrics": {key.replace("__", "/"): value for key, value in metrics.items()}}
    return {"run": run, "model": {"describe": about}}


def values(first: float, last: float, last_step: int = 7) -> dict[str, float]:
    return {"first": first, "first_step": 0, "last": last, "last_step": last_step}


@pytest.mark.parametrize(("stage", "part"), [("fit", "val"), ("validate", "val"), ("test", "test")])
def test_a_stage_shows_its_part_of_the_data(stage: str, part: str) -> None:
    metrics = {
        f"{part}__by_position__position_10_16__nats_per_token": values(7, 2),
        f"{part}__by_position__position_02_03__nats_per_token": values(7, 3),
        f"{part}__by_frequency__decile_02__nats_per_token": values(6, 3.5),
        f"{part}__by_frequency__decile_01__nats_per_token": values(6, 1.5),
        ("test" if part == "val" else "val") + "__by_frequency__decile_03__nats_per_token": values(9, 9),
    }
    report = report_of(stage, **metrics)
    assert parts_of_text.by_frequency(report).rows == [
        ["1 (commonest)", "75.0 %", "4.000", "6.000", "1.500"], ["2", "25.0 %", "5.000", "6.000", "3.500"],
    ]  # fmt: skip
    assert parts_of_text.by_position(report).rows == [["2–3", "7.000", "3.000"], ["10–16", "7.000", "2.000"]]
    (frequency, step), (position, _) = parts_of_text.charts(report)
    assert step == (8 if stage == "fit" else 9)
    lines = {mark.name: [y for _, y in mark.points] for mark in frequency.views[""]}
    assert lines == {"frequency alone": [4.0, 5.0], "before": [6.0, 6.0], "this model": [1.5, 3.5]}
    assert [mark.name for mark in position.views[""]] == ["before", "this model"]


def test_an_evaluation_has_no_before_and_other_runs_have_neither() -> None:
    once = {"last": 2.0, "last_step": 3, "first": 2.0, "first_step": 3}
    report = report_of("validate", val__by_position__position_1__nats_per_token=once)
    assert parts_of_text.by_position(report).rows == [["1", "–", "2.000"]]
    assert [len(chart.views[""]) for chart, _ in parts_of_text.charts(report)] == [1]
    assert not parts_of_text.by_frequency(report)
    assert parts_of_text.charts(report_of("fit", val__loss=values(3, 2))) == []
