"""The panels of activations and of similar states answer to clicks and keys, in a real browser."""

import numpy as np
import pytest
import torch
from torch import nn

from hiddenscope.callbacks.recording import record

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

SHAPE = "document.querySelector('#panel-body .js-plotly-plot').layout.shapes"


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(2, 5, batch_first=True)

    def forward(self, x):
        return self.gru(x)[0]


@pytest.fixture(scope="module")
def address(serve, tmp_path_factory):
    folder = tmp_path_factory.mktemp("activations")
    torch.manual_seed(0)
    waves = np.sin(np.arange(40)[None, :, None] / np.array([3.0, 5.0]) + np.arange(8)[:, None, None])
    with record(Net(), torch.from_numpy(waves.astype(np.float32)), folder, strict=True) as recording:
        recording.snapshot(0)
    return serve(folder)


def test_a_period_in_the_table_is_shown_in_its_sequence_and_a_moved_period_is_searched_for(page, address):
    page.goto(f"{address}/?panel=activations")
    table = page.locator("#panel-body .ag-center-cols-container [role=row]")
    table.first.wait_for()
    shown = page.locator("#panel-body .mantine-Select-input")
    sequence = shown.input_value()
    rows = [row.locator("[col-id=sequence]").inner_text() for row in table.all()]
    place = next(i for i, name in enumerate(rows) if name != sequence)
    for _ in range(5):  # the worker is at work: a click is lost when the panel is drawn anew under it
        table.nth(place).locator("[col-id=peak]").click()
        page.wait_for_timeout(4000)
        if shown.input_value() == rows[place]:
            break
    assert shown.input_value() == rows[place]
    page.goto(f"{address}/?panel=search")
    page.locator("#panel-body .dash-slider-thumb").first.wait_for()
    page.wait_for_function(f"{SHAPE}.length > 0")
    before = page.evaluate(f"{SHAPE}[0].x0")
    page.locator("#panel-body .dash-slider-thumb").first.focus()
    page.keyboard.press("ArrowLeft" if before > 0 else "ArrowRight")
    page.wait_for_function(f"before => {SHAPE}[0].x0 !== before", arg=before)
    assert abs(page.evaluate(f"{SHAPE}[0].x0") - before) == 1
