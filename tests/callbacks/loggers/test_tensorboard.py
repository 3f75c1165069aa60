"""What a real run leaves for TensorBoard, read back with TensorBoard's own reader, after a resume too."""

import re
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout

from callbacks.loggers.tensorboard import layout
from modulant.reports.series import read_metrics


@pytest.fixture(scope="module")
def events(field_run: Path) -> EventAccumulator:
    found = EventAccumulator(str(field_run / "tensorboard"), size_guidance={"scalars": 0, "tensors": 0, "images": 0})
    found.Reload()
    return found


def laid_out(events: EventAccumulator) -> list[Layout]:
    found = []
    for event in events.Tensors("custom_scalars__config__"):
        proto = Layout()
        proto.ParseFromString(event.tensor_proto.string_val[0])
        found.append(proto)
    return found


def test_every_layer_at_every_logged_step_lies_in_its_chart(events: EventAccumulator, field_run: Path) -> None:
    logged = set(events.Tags()["scalars"])
    shown = {chart.title: chart for category in laid_out(events)[-1].category for chart in category.chart}
    series = read_metrics(field_run / "metrics.csv")
    alphas = {key for key in series if key.startswith("alpha/layer_")}
    assert len(alphas) == 2 * 4, "two layers: the mean, and three experts"
    held: set[str] = set()
    for title, chart in shown.items():
        if title.startswith("α"):
            (pattern,) = chart.multiline.tag
            tags = {tag for tag in logged if re.match(pattern, tag)}
            assert len(tags) == 2, title
            held |= tags
    assert held == alphas
    for tag in held:
        read = {event.step: event.value for event in events.Scalars(tag)}
        assert sorted(read) == [step for step, _ in series[tag]]
        assert read == pytest.approx(dict(series[tag]), rel=1e-6)


def test_no_chart_is_empty(events: EventAccumulator) -> None:
    logged = set(events.Tags()["scalars"])
    for category in laid_out(events)[-1].category:
        for chart in category.chart:
            (pattern,) = chart.multiline.tag
            assert any(re.match(pattern, tag) for tag in logged), chart.title
    titles = [category.title for category in laid_out(events)[-1].category]
    assert titles == ["Alpha", "Lift", "Pentachora", "Inside the modulator", "Loss"]


def test_a_resumed_run_lays_out_the_same(events: EventAccumulator) -> None:
    first, second = laid_out(events)
    assert first == second


def test_figures_and_configuration_are_there_as_they_lie_in_the_folder(
    events: EventAccumulator, field_run: Path
) -> None:
    assert {tag.removeprefix("figures/") for tag in events.Tags()["images"]} == {
        path.stem for path in (field_run / "figures").iterdir()
    }
    (image,) = events.Images("figures/loss")
    assert image.encoded_image_string == (field_run / "figures" / "loss.png").read_bytes()
    text = events.Tensors("config/text_summary")[-1].tensor_proto.string_val[0].decode()
    assert "class_path: modulators.FieldModulator" in text


def test_without_a_modulator_or_with_one_expert_no_chart_waits_for_what_never_comes() -> None:
    assert "Alpha" not in layout([])
    assert "Inside the modulator" not in layout([])
    assert list(layout(["lerp"])["Alpha"]) == ["α of all layers"]
    assert list(layout(["lerp"])["Inside the modulator"]) == ["relative push by layer"]
