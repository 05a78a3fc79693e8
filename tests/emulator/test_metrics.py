"""The page /metrics has the names, buckets and forms of metrics-exporter-prometheus."""

from __future__ import annotations

from harness.emulator.metrics import HELP, Metrics, number


def page(metrics: Metrics) -> list[str]:
    return metrics.render().split("\n")


def test_a_fresh_server_has_an_empty_page() -> None:
    """A metric is there only after its first sample."""
    assert Metrics(1024, 2048).render() == ""


def test_duration_buckets_are_the_routers_products() -> None:
    """35 steps of 1.5 from 0.00015 with their floating-point noise, printed without exponents."""
    metrics = Metrics(1024, 2048)
    metrics.record("tgi_request_duration", 0.5)
    buckets = [line for line in page(metrics) if "_bucket" in line]
    assert len(buckets) == 36
    assert buckets[0] == 'tgi_request_duration_bucket{le="0.00015000000000000001"} 0'
    assert buckets[1] == 'tgi_request_duration_bucket{le="0.00022500000000000002"} 0'
    assert buckets[34] == 'tgi_request_duration_bucket{le="145.61096060497135"} 1'
    assert buckets[35] == 'tgi_request_duration_bucket{le="+Inf"} 1'


def test_length_buckets_are_hundredths_of_the_limits() -> None:
    """100 steps of the limit, noise included; whole numbers without a point."""
    metrics = Metrics(2048, 4095)
    metrics.record("tgi_request_input_length", 20)
    metrics.record("tgi_request_max_new_tokens", 41)
    lines = page(metrics)
    assert 'tgi_request_input_length_bucket{le="20.48"} 1' in lines
    assert 'tgi_request_max_new_tokens_bucket{le="122.85000000000001"} 1' in lines
    assert 'tgi_request_input_length_bucket{le="2048"} 1' in lines


def test_own_labels_stand_before_the_bucket() -> None:
    """`method` comes before `le`, and sum and count carry it too."""
    metrics = Metrics(1024, 2048)
    metrics.record("tgi_batch_forward_duration", 1.0, 'method="decode"')
    lines = page(metrics)
    assert 'tgi_batch_forward_duration_bucket{method="decode",le="+Inf"} 1' in lines
    assert 'tgi_batch_forward_duration_sum{method="decode"} 1' in lines


def test_help_type_and_an_empty_line() -> None:
    """A described metric has HELP and TYPE before its samples and an empty line after them."""
    metrics = Metrics(1024, 2048)
    metrics.count("tgi_request_count")
    metrics.count("tgi_request_failure", 'err="validation"', by=2)
    assert page(metrics)[:4] == [
        f"# HELP tgi_request_count {HELP['tgi_request_count']}",
        "# TYPE tgi_request_count counter",
        "tgi_request_count 1",
        "",
    ]
    assert page(metrics)[4:7] == ["# TYPE tgi_request_failure counter", 'tgi_request_failure{err="validation"} 2', ""]


def test_a_summarys_quantiles_are_those_of_a_sketch() -> None:
    """A value of 1 is 0.9998999999999999 in a sketch of 0.01 %, and leaves the window after a minute."""
    now = [0.0]
    metrics = Metrics(1024, 2048, lambda: now[0])
    metrics.summarise("tgi_request_skipped_tokens", 0, times=3)
    metrics.summarise("tgi_request_skipped_tokens", 1)
    assert 'tgi_request_skipped_tokens{quantile="1"} 0.9998999999999999' in page(metrics)
    assert 'tgi_request_skipped_tokens{quantile="0.5"} 0' in page(metrics)
    now[0] = 61.0
    assert 'tgi_request_skipped_tokens{quantile="1"} 0' in page(metrics)
    assert "tgi_request_skipped_tokens_count 4" in page(metrics)


def test_numbers_have_no_exponent() -> None:
    """As Rust prints a float."""
    assert [number(value) for value in (1e-7, 3.0, 2.5, 1e20)] == ["0.0000001", "3", "2.5", "100000000000000000000"]
