"""The monitors: false alarms stay under their level for ever, changes are seen, and the state is the whole truth."""

import json
import re

import jax
import numpy as np
import pytest

from experiments import monitoring
from racer_jax.data import DataError
from racer_jax.serving.betting import RISK_RATIOS, bets, reserve
from racer_jax.serving.monitor import ExchangeabilityMonitor, RiskMonitor

RNG = np.random.default_rng(0)


def test_every_bet_is_fair_at_alpha_and_worse_below():
    for alpha in (0.01, 0.1, 0.5, 0.95):
        paid_miss, paid_hit = bets(alpha)
        np.testing.assert_allclose(alpha * paid_miss + (1 - alpha) * paid_hit, 1, atol=1e-12)
        assert (0.5 * alpha * paid_miss + (1 - 0.5 * alpha) * paid_hit < 1).all()
        assert (paid_hit > 0).all()
    assert (np.diff(reserve(np.arange(100))) < 0).all()
    assert RiskMonitor(0.1).evidence == pytest.approx(1)


def test_the_wealth_is_the_mixture_over_bets_and_starting_times():
    alpha, missed = 0.2, RNG.random(30) < 0.4
    paid_miss, paid_hit = bets(alpha)
    factor = np.where(missed[:, None], paid_miss, paid_hit)
    total = 0.5 * np.mean(factor.prod(axis=0)) + float(reserve(30))
    for start in range(30):
        share = float(reserve(start) - reserve(start + 1))
        total += share * np.mean(factor[start:].prod(axis=0))
    assert RiskMonitor(alpha).update(missed).evidence == pytest.approx(total, rel=1e-9)


@pytest.mark.long
@pytest.mark.parametrize("risk", [0.1, 0.05])
def test_false_alarms_stay_under_the_level(risk):
    config = monitoring.Config(streams=2000, length=1500, window=100, change=1)
    alarms, window = monitoring.first_alarms(
        jax.random.key(1),
        risk,
        risk,
        0,
        bets(0.1),
        20.0,
        15,
        num_streams=2000,
        length=1500,
        window=100,
    )
    share = (alarms < monitoring.NEVER).mean()
    assert share <= config.level + 4 * np.sqrt(0.05 * 0.95 / 2000)
    if risk == 0.1:
        # looking again and again is not a level-5% test
        assert (window < monitoring.NEVER).mean() > 3 * config.level


@pytest.mark.slow
def test_ten_thousand_streams_of_ten_thousand():
    false, error = (
        monitoring.rows(config, monitoring.run(jax.random.key(0), None, config))[0][name]
        for config in [monitoring.Config()]
        for name in ("false_alarms", "false_alarms_error")
    )
    assert false <= 0.05 + 4 * error


@pytest.mark.long
def test_the_simulation_is_the_monitor():
    words = jax.random.key(2)
    alarms, _ = monitoring.first_alarms(
        words, 0.1, 0.3, 50, bets(0.1), 20.0, 40, num_streams=3, length=400, window=50
    )
    from racer_jax.montecarlo.subsets import threefry

    key = tuple(jax.random.key_data(words))
    stream = jax.numpy.arange(3, dtype=jax.numpy.uint32)
    time, stream = jax.numpy.arange(1200, dtype=jax.numpy.uint32) // 3, jax.numpy.tile(stream, 400)
    bits = np.asarray(threefry(key, stream, time)[0]).reshape(400, 3)
    missed = (bits >> 8) * 2.0**-24 < np.where(np.arange(400) < 50, 0.1, 0.3)[:, None]
    for i in range(3):
        assert RiskMonitor(0.1).update(missed[:, i]).alarm == alarms[i]


# The guarantee, exactly and step by step. Whatever the state, the mean of the wealth after the next
# query is at most the wealth before it: that, and an alarm at 1 / level and not before, is all that
# Ville's inequality asks for.


def walked(monitor, entries):
    """The monitor after each of the entries, itself first."""
    steps = [monitor]
    for entry in entries:
        steps.append(steps[-1].update([entry]))
    return steps


@pytest.mark.parametrize("alpha", [0.001, 0.1, 0.3, 0.9, 0.999])
def test_the_wealth_is_a_martingale_at_alpha_and_shrinks_below(alpha):
    for risk in (0, alpha, min(1, 4 * alpha)):
        for monitor in walked(RiskMonitor(alpha), RNG.random(60) < risk)[::5]:
            miss, hit = (np.exp(monitor.update([m]).log_evidence) for m in (1, 0))
            before = np.exp(monitor.log_evidence)
            assert alpha * miss + (1 - alpha) * hit == pytest.approx(before, rel=1e-12)
            lower = 0.9 * alpha
            assert lower * miss + (1 - lower) * hit < before


def test_the_reserve_is_shared_among_the_bets_and_nothing_is_made_of_nothing():
    from racer_jax.serving.betting import log_released

    for num in (0, 1, 7, 1000):
        released = float(reserve(num) - reserve(num + 1))
        assert np.exp(log_released(num)) == pytest.approx(released, rel=1e-9)
    total = sum(np.exp(log_released(num)) for num in range(500))
    assert total == pytest.approx(float(reserve(0) - reserve(500)), rel=1e-12)
    assert 0 < np.exp(log_released(10**15)) < np.exp(log_released(10**14))


def exact_mean(values, edges):
    """Mean wealth after each of `values` in every order and with every tie-break.

    The wealth is linear in each tie-break, so its mean over uniform ones is that over the ends 0
    and 1.
    """
    import itertools

    totals = np.zeros(len(values) + 1)
    cases = 0
    for order in itertools.permutations(values):
        for chances in itertools.product((0.0, 1.0), repeat=len(values)):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(
                    "racer_jax.serving.monitor.tie_break",
                    lambda seed, num, chances=chances: chances[num - 1],
                )
                steps = walked(ExchangeabilityMonitor(edges), order)
            totals += [np.exp(step.log_evidence) for step in steps]
            cases += 1
    return totals / cases


@pytest.mark.parametrize("values", [(0.1, 0.2, 0.3, 0.9), (0.1, 0.1, 0.4, 0.4)])
def test_the_wealth_is_a_martingale_over_all_orders(values):
    np.testing.assert_allclose(exact_mean(values, (0.15, 0.5)), 1, rtol=1e-12)


def test_the_wealth_stays_a_martingale_from_any_state():
    """Given the past, rank and wealth are one-to-one and linear: the mean is that of the ends."""
    from racer_jax.serving.betting import log_capital_after, log_total

    for num in (0, 3, 100, 10**6):
        for _ in range(5):
            capital = tuple(RNG.normal(-3, 3, 5).tolist())
            ends = [np.exp(log_total(log_capital_after(capital, num, r), num + 1)) for r in (0, 1)]
            assert np.mean(ends) == pytest.approx(np.exp(log_total(capital, num)), rel=1e-12)


def test_tie_breaks_are_independent_uniform_numbers():
    from racer_jax.serving.betting import tie_break

    chances = [tie_break(3, num) for num in range(200)]
    assert len(set(chances)) == 200
    assert abs(np.mean(chances) - 0.5) < 5 / np.sqrt(12 * 200)
    assert tie_break(3, 5) == chances[5] != tie_break(4, 5)


@pytest.mark.parametrize("level", [0.05, 0.3])
def test_an_alarm_is_raised_at_one_over_the_level_and_not_before(level):
    """Streams whose wealth comes close to the limit: the first query at or above it, exactly."""
    near = 0
    for i in range(60):
        monitor = RiskMonitor(0.2, level)
        steps = walked(monitor, np.random.default_rng(i).random(60) < 0.35)
        wealth = np.array([np.exp(step.log_evidence) for step in steps])
        reached = np.flatnonzero(wealth >= 1 / level)
        first = int(reached[0]) if len(reached) else None
        assert steps[-1].alarm == first
        near += bool((wealth[:first] > 0.9 / level).any())
    assert near > 3  # an alarm at 0.9 / level would have been seen
    for i in range(25):
        drift = np.random.default_rng(i).random(60) ** (1 + np.arange(60) / 30)
        steps = walked(ExchangeabilityMonitor((0.3, 0.6), level), drift)
        reached = [s.num for s in steps if np.exp(s.log_evidence) >= 1 / level]
        assert steps[-1].alarm == (reached[0] if reached else None)


def test_the_level_holds_over_every_stream_of_a_small_world():
    """All 2 ** 12 streams of feedback, each with its probability: the exact chance of an alarm."""
    alpha, level, length = 0.5, 0.4, 12
    chance = {RiskMonitor(alpha, level): 1.0}
    false = 0.0
    for _ in range(length):
        after = {}
        for monitor, weight in chance.items():
            for miss in (0, 1):
                step = monitor.update([miss])
                if step.alarm is not None:
                    false += weight / 2
                    continue
                # The order of a stream is forgotten only where its wealth is the same.
                after[step] = after.get(step, 0.0) + weight / 2
        chance = after
    assert 0.1 < false <= level


def test_power_is_kept_for_ever():
    """After 10 ** 9 exchangeable queries that lost nearly everything, a shift is still seen soon."""
    num = 10**9
    lost = ExchangeabilityMonitor(
        (0.25, 0.5, 0.75),
        num=num,
        counts=(num // 4,) * 4,
        log_capital=(-5000.0,) * 5,
    )
    assert lost.update([0.9] * 120).alarm is not None
    start = ExchangeabilityMonitor((0.25, 0.5, 0.75), num=400, counts=(100,) * 4)
    delays = [monitor.update([0.9] * 200).alarm - monitor.num for monitor in (start, lost)]
    assert delays[1] < 6 * delays[0]
    risk = RiskMonitor(0.1, num=num, misses=0, log_wealth=(-5000.0,) * 5)
    assert risk.update([1] * 40).alarm is not None


def test_wealth_beyond_any_float_is_kept():
    rich = RiskMonitor(0.01).update([1] * 3000)
    assert rich.log_evidence > 1000
    assert np.isfinite(rich.evidence)
    poor = RiskMonitor(0.9).update([0] * 3000)
    assert np.isfinite(poor.log_evidence)


def test_states_of_format_1_go_on(tmp_path):
    from racer_jax.serving.monitor import _digest, load_monitor

    def old(kind, **state):
        state = {"format": 1, "kind": kind, **state}
        (tmp_path / "old.json").write_text(json.dumps({**state, "checksum": _digest(state)}))
        return tmp_path / "old.json"

    wealth = [0.3, 0.2, 0.1, 0.05, 0.01]
    result = load_monitor(old("risk", alpha=0.1, num=9, misses=1, wealth=wealth, alarm=None))
    assert np.exp(result.log_wealth) == pytest.approx(wealth)
    more = {"edges": [0.5], "level": 0.05, "seed": 0, "num": 4, "counts": [3, 1], "alarm": None}
    result = load_monitor(old("exchangeability", **more, capital=[0.5, 0.4, 0.3]))
    assert result.evidence == pytest.approx(1.2)  # nothing is made of nothing
    with pytest.raises(DataError, match="begin another"):
        load_monitor(old("exchangeability", **more, capital=[1e-9, 1e-9, 1e-9]))


def test_a_higher_risk_is_seen_from_the_start_and_later():
    assert RiskMonitor(0.1).update(RNG.random(3000) < 0.15).alarm < 3000
    late = RiskMonitor(0.1).update([*(RNG.random(2000) < 0.08), *(RNG.random(3000) < 0.2)])
    assert 2000 < late.alarm < 3500
    assert late.evidence >= 1


def test_exchangeability_alarms_on_a_drift_and_rarely_without():
    reference = RNG.random(500)
    quiet = [
        ExchangeabilityMonitor.over(reference, seed=i).update(RNG.random(400)).alarm
        for i in range(40)
    ]
    # level 5% of 40 is 2; more than 7 has a chance of 0.1%
    assert sum(alarm is not None for alarm in quiet) <= 7
    drift = np.concatenate([RNG.random(300), 0.4 + 0.6 * RNG.random(600)])
    assert 300 < ExchangeabilityMonitor.over(reference).update(drift).alarm < 900


def test_ties_do_not_break_exchangeability():
    alarms = [
        ExchangeabilityMonitor((0.5,), seed=i).update((RNG.random(300) < 0.5).astype(float)).alarm
        for i in range(30)
    ]
    assert sum(alarm is not None for alarm in alarms) <= 6


@pytest.mark.parametrize(
    ("start", "stream"),
    [
        (RiskMonitor(0.1), (RNG.random(120) < 0.3).tolist()),
        (ExchangeabilityMonitor.over(RNG.random(50), 8), RNG.random(120).tolist()),
    ],
)
def test_a_saved_monitor_goes_on_as_if_it_had_never_stopped(start, stream, tmp_path):
    path = tmp_path / "monitor.json"
    start.update(stream[:47]).save(path)
    resumed = type(start).load(path).update(stream[47:])
    assert resumed == start.update(stream)
    assert len(path.read_bytes()) < 4000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "saved state of a monitor: JSON in UTF-8"),
        ("[]", "must be the saved state of a monitor, a JSON object"),
        ('{"kind": "exchangeability"}', "kind 'risk'"),
        ('{"kind": "risk", "format": 99}', "must be of format 2"),
        ('{"kind": "risk", "format": 2, "alpha": 2.0}', "alpha must be in (0, 1), got 2.0"),
        ('{"kind": "risk", "format": 2, "beta": 2.0}', "unexpected keyword"),
        (
            '{"kind": "risk", "format": 2, "alpha": 0.1, "log_wealth": [1]}',
            "log_wealth must hold 5 finite numbers",
        ),
        (
            '{"kind": "risk", "format": 2, "alpha": 0.1, "misses": 3}',
            "misses must be between 0 and num = 0, got 3",
        ),
        (
            '{"kind": "risk", "format": 2, "alpha": 0.1, "num": "7"}',
            "num must be an integer, got '7' of type str",
        ),
        (
            '{"kind": "risk", "format": 2, "alpha": 0.1, "num": -1}',
            "num must be at least 0, got -1",
        ),
        (
            '{"kind": "risk", "format": 2, "alpha": 0.1, "alarm": 2}',
            "alarm must be None or at most num = 0, got 2",
        ),
        (
            '{"kind": "risk", "format": 2, "alpha": 0.1, "log_wealth": [1, 1, 1, 1, NaN]}',
            "log_wealth must hold 5 finite",
        ),
        ('{"kind": "risk", "format": 2, "alpha": 0.1}', "must carry the checksum of its content"),
    ],
)
def test_a_file_that_is_no_state_is_refused(text, message, tmp_path):
    path = tmp_path / "state.json"
    path.write_text(text)
    with pytest.raises(DataError, match=re.escape(message)):
        RiskMonitor.load(path)


@pytest.mark.parametrize(
    "monitor",
    [
        RiskMonitor(0.1).update([0, 1, 0]),
        ExchangeabilityMonitor.over(RNG.random(50), 8).update([0.5, 0.2]),
    ],
)
def test_a_damaged_state_is_refused_wherever_the_damage_is(monitor, tmp_path):
    path = tmp_path / "state.json"
    monitor.save(path)
    text = path.read_text()
    assert type(monitor).load(path) == monitor
    for at in range(0, len(text) - 2, 3):
        for damaged in (text[:at], text[:at] + ("1" if text[at] != "1" else "2") + text[at + 1 :]):
            path.write_text(damaged)
            try:
                assert type(monitor).load(path) == monitor  # a blank that changed says nothing
            except DataError:
                continue
            assert text[at].isspace()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: RiskMonitor(1.5), ValueError, "alpha must be in (0, 1), got 1.5"),
        (lambda: RiskMonitor(0.1, level=0), ValueError, "level must be in (0, 1), got 0"),
        (
            lambda: RiskMonitor(0.1, level="a"),
            TypeError,
            "level must be a number in (0, 1), got 'a'",
        ),
        (
            lambda: RiskMonitor(0.1).update([0, 2]),
            ValueError,
            "missed must be 0 or 1, got 2 at [1]",
        ),
        (
            lambda: ExchangeabilityMonitor((1.0, 1.0)),
            ValueError,
            "edges must be finite and increase",
        ),
        (
            lambda: ExchangeabilityMonitor((1.0,), counts=(1, 0)),
            ValueError,
            "counts must hold 2 numbers with sum 0",
        ),
        (
            lambda: ExchangeabilityMonitor((1.0,), counts=(0.5, -0.5)),
            TypeError,
            "counts must be an integer, got 0.5",
        ),
        (
            lambda: ExchangeabilityMonitor((1.0,), seed=-1),
            ValueError,
            "seed must be at least 0, got -1",
        ),
        (
            lambda: ExchangeabilityMonitor((1.0,)).update([np.nan]),
            ValueError,
            "numbers must be finite, got nan at [0]",
        ),
        (
            lambda: ExchangeabilityMonitor.over([1.0, 1.0]),
            ValueError,
            "at least two different finite numbers",
        ),
        (
            lambda: ExchangeabilityMonitor.over([1.0, 2.0], 1),
            ValueError,
            "num_bins must be at least 2, got 1",
        ),
        (
            lambda: RiskMonitor.load("/nowhere/state.json"),
            DataError,
            "cannot be read: No such file",
        ),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=re.escape(message)):
        call()


@pytest.mark.long
def test_the_experiment_writes_what_it_prints(tmp_path, capsys):
    arguments = [
        "--streams",
        "200",
        "--length",
        "300",
        "--window",
        "50",
        "--change",
        "100",
        "--output",
        str(tmp_path),
    ]
    assert monitoring.main(arguments) == 0
    assert "PASS" in capsys.readouterr().out
    scenarios = json.loads((tmp_path / "results.json").read_text())["results"]
    assert [len(scenario["monitor"]) for scenario in scenarios] == [200, 200, 200]
    assert len((tmp_path / "results.csv").read_text().splitlines()) == 7
    assert (tmp_path / "alarms.png").read_bytes().startswith(b"\x89PNG")
    assert len(RISK_RATIOS) == 5
