"""The benchmark's picture."""

import json

import pandas as pd
from bench import report
from tiny_results import check_layout


def test_the_benchmarks_labels_cross_no_axes(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    (tmp_path / "machine.json").write_text(
        json.dumps({"processor": "some", "threads": 2, "torch": "2"})
    )

    def write(part, works):
        rows = [
            {"size": size, "dtype": dtype, "batch": batch, "response": response}
            | {"trainer": trainer, "seconds": seconds, "peak_mb": 400 * seconds}
            | {"least_gflop": 1.0, "peak_gflops": 1.2 / seconds**0.5}
            for size, dtype, batch, response, *both in works
            for trainer, seconds in zip(("prudent", "trl"), both, strict=True)
        ]
        pd.DataFrame(rows).to_csv(tmp_path / f"{part}.csv", index=False)

    write("steps", [("2x64", "float32", 128, 10, 1.75, 140), ("4x256", "bfloat16", 128, 10, 5, 9)])
    write("length", [("4x256", "float32", 32, n, n / 8, n / 2) for n in (10, 32, 128)])
    write("batch", [("4x256", "float32", n, 10, n / 8, n / 2) for n in (32, 128, 256)])
    figure = report.picture()
    check_layout(figure)
    for axes in figure.axes:
        box = axes.get_window_extent()
        for text in axes.texts:
            extent = text.get_window_extent()
            assert extent.x0 > box.x0 and extent.y0 > box.y0, text.get_text()
            assert extent.x1 < figure.bbox.x1, text.get_text()
