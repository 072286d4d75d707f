// The report of a racer; page.js stands before it in the same function.
  const ev = data.evaluation;
  const levels = data.levels.map((level, i) => ({ ...level, name: ev.alphas[i] }));
  const numModels = ev.models.length;
  const own = ev.alphas.indexOf(ev.alpha);
  const JUDGE = "a judge picks", MAJORITY = "majority";
  const MAX_BARS = 30, MAX_FIXED = 16;
  const state = { row: own, group: 0, aggregation: null, axis: "size" };

  const way = (name) => {
    if (name === MAJORITY) return "majority vote";
    if (name === JUDGE) return "a perfect judge";
    const [weighting, temperature] = name.split(", T = ");
    const word = { score: "router score", log_odds: "log odds of the router" }[weighting] ?? weighting.replaceAll("_", " ");
    return temperature === undefined ? name : `vote weighted by ${word} (T = ${temperature})`;
  };
  const groupName = (group, i) => (i === 0 ? "All queries" : group.group);
  const alphas = levels.map((level) => level.value);
  const alphaAxis = () => axis("risk level α", { hoverformat: ".3~f", range: spread(alphas) });
  function drawRisk(group, row) {
    const above = group.expected.map((x, i) => (known(x) === null ? null : x + 2 * group.std[i]));
    const below = group.expected.map((x, i) => (known(x) === null ? null : Math.max(0, x - 2 * group.std[i])));
    const traces = [];
    if (group.upper.some((x) => known(x) !== null)) {
      traces.push(
        line("", alphas, below, { line: { width: 0 }, showlegend: false, hoverinfo: "skip" }),
        line("chance: expected ± 2 sd", alphas, above, { line: { width: 0 }, fill: "tonexty", fillcolor: colour.band, hoverinfo: "skip" }),
        dash("promise: at most", alphas, group.upper, colour.promise),
        dash("promise: above", alphas, group.lower.map((x) => (known(x) === null ? null : Math.max(0, x))), colour.promise, "dot"),
      );
    }
    traces.push(line("seen here", alphas, group.risk), here(alphas[row], group.risk[row], "now"));
    draw("chart-risk", traces, { xaxis: alphaAxis(), yaxis: share("misrouted"), shapes: [verticalLine(alphas[row])] },
      `Risk against alpha; at alpha ${levels[row].name} it is ${pct(group.risk[row])}.`);
  }

  function drawSaved(group, row) {
    const traces = [line("calls saved", alphas, group.calls_saved), here(alphas[row], group.calls_saved[row], "now")];
    if (group.cost_saved) {
      traces.push(line("cost saved", alphas, group.cost_saved, { line: { color: colour.good, width: 2.5 } }),
        here(alphas[row], group.cost_saved[row], "now", colour.good));
    }
    traces.push(dash("abstains", alphas, group.abstention, colour.fixed), here(alphas[row], group.abstention[row], "now", colour.fixed));
    draw("chart-saved", traces, { xaxis: alphaAxis(), yaxis: share(""), shapes: [verticalLine(alphas[row])] },
      `Share of calls${group.cost_saved ? " and cost" : ""} saved, and abstentions, against alpha.`);
  }

  function drawAccuracy(group, row) {
    const names = Object.keys(group.accuracy), chosen = state.aggregation;
    const full = ensemble(group), traces = [];
    let first = true;
    for (const name of names.filter((other) => other !== chosen && other !== JUDGE)) {
      traces.push(line(way(name), alphas, group.accuracy[name], {
        line: { color: colour.other, width: 1 }, legendgroup: "others", showlegend: false, hoverinfo: "skip",
      }));
      if (first) Object.assign(traces.at(-1), { name: "other votes", showlegend: true });
      first = false;
    }
    if (chosen !== JUDGE) traces.push(dash("perfect judge", alphas, group.accuracy[JUDGE], colour.muted, "dot"));
    traces.push(
      dash("all models", alphas, alphas.map(() => full.accuracy[chosen] ?? null), colour.promise),
      dash("best single", alphas, alphas.map(() => single(group)), colour.fixed, "dashdot"),
      line(way(chosen), alphas, group.accuracy[chosen]), here(alphas[row], group.accuracy[chosen][row], "now"),
    );
    draw("chart-accuracy", traces,
      { xaxis: alphaAxis(), yaxis: share("answered rightly", { rangemode: "normal" }), shapes: [verticalLine(alphas[row])] },
      `Accuracy against alpha; at alpha ${levels[row].name}, ${way(chosen)} is right for ${pct(group.accuracy[chosen][row])}.`);
    const rows = names.map((name) => [
      capital(way(name)), pct(group.accuracy[name][row]), pct(full.accuracy[name]), points(group.accuracy[name][row] - full.accuracy[name]),
    ]);
    fill("table-accuracy", ["Answer chosen by", "This router", "All models", "Points gained"], rows, names.indexOf(chosen));
  }

  // Names like org/model without the organisation, as long as they stay different.
  const bare = ev.models.map((name) => (/^[\w.-]+(\/[\w.-]+)+$/.test(name) ? name.split("/").at(-1) : name));
  const shortNames = new Set(bare).size === numModels ? bare : ev.models;

  function drawCalled(group, row) {
    const width = narrow() ? 18 : 26;
    const places = ev.models.map((_, j) => j)
      .sort((a, b) => group.called[ev.models[b]][own] - group.called[ev.models[a]][own]).slice(0, MAX_BARS);
    const values = places.map((j) => group.called[ev.models[j]][row]);
    const spot = places.map((_, i) => i);
    put("called-note", `Share of the queries for which each is called, ${places.length < numModels
      ? `the ${MAX_BARS} most called of ${count(numModels)}, ` : ""}in the order at α = ${ev.alpha}.`);
    draw("chart-called", [{
      type: "bar", orientation: "h", x: values, y: spot, text: values.map(pct), textposition: "outside", cliponaxis: false,
      marker: { color: colour.accent }, width: 0.68, customdata: places.map((j) => label(ev.models[j])),
      hovertemplate: "%{customdata}: %{text}<extra></extra>",
    }], {
      xaxis: share("", { range: [0, 1.16], tickvals: [0, 0.25, 0.5, 0.75, 1], ticktext: ["0%", "25%", "50%", "75%", "100%"] }), showlegend: false, hovermode: "closest",
      yaxis: axis("", { tickvals: spot, ticktext: places.map((j) => label(shorten(shortNames[j], width))), autorange: "reversed", showgrid: false, ticks: "" }),
      height: Math.max(150, 60 + 30 * places.length), margin: { l: 12, r: 12, t: 4, b: 30 },
    }, `Models called: ${places.slice(0, 5).map((j, i) => `${ev.models[j]} ${pct(values[i])}`).join(", ")}.`);
  }

  const ensemble = (group) => group.baselines.at(-1);
  const single = (group) => group.baselines[0].accuracy[JUDGE];
  // A fixed order of models is judged by the chosen way where that is known of it, else by the majority.
  const fixedWay = (group) => (group.baselines[0].accuracy[state.aggregation] === undefined ? MAJORITY : state.aggregation);
  const ordered = (group) => group.baselines.filter((it, i, all) => it.name.startsWith("static order") || i === all.length - 1);

  function atSize(points, size) {
    const next = points.findIndex((point) => point.size >= size);
    if (next < 0) return points.at(-1).accuracy;
    const before = next ? points[next - 1] : { size: 0, accuracy: 0 };
    const after = points[next], part = (size - before.size) / (after.size - before.size);
    return before.accuracy + part * (after.accuracy - before.accuracy);
  }

  function drawFixed(group, row) {
    const byCost = state.axis === "cost" && group.cost !== null;
    const chosen = state.aggregation, other = fixedWay(group), full = ensemble(group);
    const x = byCost ? group.cost.map((c) => 1000 * c) : group.size;
    const at = (it) => (byCost ? 1000 * it.cost : it.size);
    const points = ordered(group).map((it) => ({ size: it.size, accuracy: it.accuracy[other], x: at(it), it }));
    const best = group.baselines[0], mean = byCost ? (1000 * full.cost) / numModels : 1;
    const mark = (name, px, y, symbol, color) => ({
      type: "scatter", mode: "markers", name, x: [px], y: [known(y)], marker: { symbol, size: 11, color, line: { color: colour.card, width: 1.5 } },
      hovertemplate: `${name}: %{y:.1%}<extra></extra>`,
    });
    const far = Math.max(...x, ...points.map((p) => p.x));
    const traces = [
      dash("oracle: some model is right", [0, far], [group.oracle, group.oracle], colour.muted, "dot"),
      line("static order", points.map((p) => p.x), points.map((p) => p.accuracy), {
        mode: "lines+markers", line: { color: colour.fixed, width: 2 }, marker: { size: 6, color: colour.fixed },
        customdata: points.map((p) => plural(p.size, "model")), hovertemplate: "static order, %{customdata}: %{y:.1%}<extra></extra>",
      }),
      line("this router, every α", x, group.accuracy[chosen], {
        customdata: ev.alphas.map(label), hovertemplate: "this router, α = %{customdata}: %{y:.1%}<extra></extra>",
      }),
      mark("best single", at(best), single(group), "diamond", colour.fixed),
      mark("all models", at(full), full.accuracy[chosen] ?? null, "square", colour.promise),
      mark("random model", mean, group.random, "x", colour.other),
      here(x[row], group.accuracy[chosen][row], "now"),
    ];
    draw("chart-fixed", traces, {
      xaxis: axis(byCost ? "dollars for 1,000 queries" : "models called, on average", { rangemode: "tozero" }),
      yaxis: share("answered rightly", { rangemode: "normal" }), hovermode: "closest", height: narrow() ? 380 : 400,
    }, `Accuracy against ${byCost ? "cost" : "models called"}, of this router and of fixed choices; the table has the figures.`);

    const same = atSize(points, group.size[row]), mine = group.accuracy[chosen][row], gain = mine - same;
    const judged = other === chosen ? "" : `, by ${way(other)}`;
    put("beta", `For ${pct(group.beta)} of these queries no model is right (95% interval ${pct(group.beta_low)} to ${pct(group.beta_high)}), so nothing that picks among these models can be right for more than ${pct(group.oracle)}.`);
    put("fixed-note", `At α = ${levels[row].name}, ${way(chosen)} over the router's ${two(group.size[row])} models a query is right for ${pct(mine)}. `
      + `The same number of calls spent on the static order${judged} would give ${pct(same)}: the router is `
      + (Math.abs(gain) < 0.0005 ? "level with it." : `${(100 * Math.abs(gain)).toFixed(1)} points ${gain > 0 ? "better" : "worse"}.`));

    const shown = group.baselines.filter((it, i, all) => i < MAX_FIXED || i === all.length - 1);
    show("fixed-cut", shown.length < group.baselines.length);
    put("fixed-cut", `The JSON has all ${count(group.baselines.length)} fixed choices.`);
    const money = group.cost === null ? () => [] : (value) => [dollars(value)];
    const line2 = (it, i) => {
      const last = i === shown.length - 1;
      const name = i === 0 ? `Best single: ${it.models[0]}` : last ? (numModels === 1 ? "All models (one)" : `All ${count(numModels)} models`)
        : i === 1 ? `Static order: ${it.models[0]}` : `Static order, then ${it.models.at(-1)}`;
      const vote = it.accuracy[chosen] ?? it.accuracy[other];
      return [name, two(it.size), pct(it.avoidable_miss), ...money(it.cost), ...(chosen === JUDGE ? [] : [pct(vote)]), pct(it.accuracy[JUDGE])];
    };
    const judge = chosen === JUDGE ? [] : [`Right, by ${way(other)}`];
    const rows = [
      [`This router, α = ${levels[row].name}`, two(group.size[row]), pct(group.avoidable_miss[row]), ...money(group.cost?.[row]),
        ...(chosen === JUDGE ? [] : [pct(group.accuracy[other][row])]), pct(group.accuracy[JUDGE][row])],
      ...shown.map(line2),
      ["Random model", "1.00", pct(group.oracle - group.random), ...money(full.cost === null ? null : full.cost / numModels),
        ...(chosen === JUDGE ? [] : [pct(group.random)]), pct(group.random)],
      ["Oracle: some model is right", "1.00", "0.0%", ...money(null), ...(chosen === JUDGE ? [] : [pct(group.oracle)]), pct(group.oracle)],
    ];
    fill("table-fixed", ["", "Models called", "Avoidable misses", ...(group.cost === null ? [] : ["$ for 1,000"]), ...judge, "Perfect judge"], rows, 0);
  }

  // --- one model after another ---

  const stops = data.sequential;
  function drawStops(row) {
    if (!stops) return;
    const place = Number($("stop-level").value), at = stops.levels[place], whole = ev.groups[0], chosen = state.aggregation;
    const byCost = state.axis === "cost" && whole.cost !== null && at.dollars !== null;
    const x = stops.levels.map((level) => level.value);
    const spent = (level) => (byCost ? 1000 * level.dollars : level.calls);
    const sets = byCost ? whole.cost.map((c) => 1000 * c) : whole.size;
    const xaxis = () => axis("risk level α", { hoverformat: ".3~f", range: spread([...x, ...alphas]) });
    const shapes = [verticalLine(at.value)];
    const unit = byCost ? "dollars for 1,000 queries" : "models called, on average";
    draw("chart-stops-calls", [
      line("a set at once", alphas, sets, { line: { color: colour.fixed, width: 2 } }),
      line("one after another", x, stops.levels.map(spent)), here(at.value, spent(at), "now"),
    ], { xaxis: xaxis(), yaxis: axis(unit, { rangemode: "tozero" }), shapes },
    `${capital(unit)} against alpha, of sets and of calling one model after another.`);
    const reference = referenceName(stops);
    draw("chart-stops-accuracy", [
      dash(reference, [x[0], Math.max(...x, ...alphas)], [at.full_accuracy, at.full_accuracy], colour.promise),
      line("a set at once", alphas, whole.accuracy[chosen], { line: { color: colour.fixed, width: 2 } }),
      line("one after another", x, stops.levels.map((level) => level.accuracy)), here(at.value, at.accuracy, "now"),
    ], { xaxis: xaxis(), yaxis: share("answered rightly", { rangemode: "normal" }), shapes },
    `Accuracy against alpha, of sets and of calling one model after another; the table has the figures.`);
    drawStopsAfter(stops, at);
    const money = at.dollars === null ? "" : `, ${dollars(at.dollars)} for 1,000 queries,`;
    put("stops-sentence", `Stopped at ${levelName(at)}, a query takes ${two(at.calls)} of ${count(stops.order.length)} calls${money} one after another, and its answer is right for ${pct(at.accuracy)}. `
      + `A set at α = ${levels[row].name} is of ${two(whole.size[row])} models, right by ${way(chosen)} for ${pct(whole.accuracy[chosen][row])}; ${reference} is right for ${pct(at.full_accuracy)}. `
      + `Stopped on decided votes alone, ${two(stops.levels[0].calls)} calls give the answers of ${reference}.`);
    put("stops-promise", `${at.guarantee} Of a set another thing is promised, see above: so the two are to be compared by calls and accuracy, not at one α.`);
    put("stops-why", stopsWhy(stops, at));
    fillStops(stops, place);
  }

  function drawGroups(row) {
    if (ev.groups.length < 3) return;
    const parts = ev.groups.slice(1, 1 + MAX_BARS), spot = parts.map((_, i) => i);
    const cost = ev.groups[0].cost !== null;
    const any = ev.groups.slice(1).some((group) => group.promised);
    put("groups-note", (any ? "Each group has a threshold of its own, so the promise holds in each."
      : "One threshold serves all groups: the promise is for all queries together, and a group may fare better or worse.")
      + (ev.groups.length - 1 > MAX_BARS ? ` The chart shows the first ${MAX_BARS} of ${count(ev.groups.length - 1)} groups.` : ""));
    draw("chart-groups", [{
      type: "scatter", mode: "markers", name: "seen here", x: parts.map((group) => group.risk[row]), y: spot,
      marker: { size: 12, color: colour.accent }, customdata: parts.map((group) => [label(group.group), pct(group.risk[row])]),
      hovertemplate: "%{customdata[0]}: %{customdata[1]}<extra></extra>",
    }, {
      type: "scatter", mode: "markers", name: "expected ± 2 sd", x: parts.map((group) => known(group.expected[row])), y: spot, hoverinfo: "skip",
      marker: { size: 14, color: colour.muted, symbol: "line-ns", line: { color: colour.muted, width: 2 } },
      error_x: { type: "data", array: parts.map((group) => 2 * (known(group.std[row]) ?? 0)), color: colour.muted, thickness: 1.5, width: 5 },
      visible: parts.some((group) => known(group.expected[row]) !== null),
    }, dash("α", [null], [null], colour.promise)], {
      xaxis: share("misrouted"), hovermode: "closest", shapes: [{ ...verticalLine(alphas[row], colour.promise), line: { color: colour.promise, width: 2, dash: "dash" } }],
      yaxis: axis("", { tickvals: spot, ticktext: parts.map((group) => label(shorten(group.group, narrow() ? 14 : 26))), range: [parts.length - 0.4, -0.6], ticks: "" }),
      height: 120 + 36 * parts.length, margin: { l: 12, r: 12, t: 10, b: 40 },
      legend: { orientation: "h", x: 0, y: -64 / (36 * parts.length), yanchor: "top" },
    }, `Risk of each group at alpha ${levels[row].name}; the table has the figures.`);
    const head = ["Group", "Queries", "Missed", "At most", "Expected", "Models called", "Calls saved", ...(cost ? ["$ for 1,000"] : []), "Abstains", "Answered rightly"];
    fill("table-groups", head, ev.groups.map((group, i) => [
      groupName(group, i), count(group.num_queries), pct(group.risk[row]), pct(group.upper[row]), pct(group.expected[row]), two(group.size[row]),
      pct(group.calls_saved[row]), ...(cost ? [dollars(group.cost[row])] : []), pct(group.abstention[row]), pct(group.accuracy[state.aggregation][row]),
    ]), state.group);
  }

  function fillLevels(group, row) {
    const names = Object.keys(group.accuracy), cost = group.cost !== null;
    const head = ["α", "Missed", "At most", "Above", "Expected", "sd", "Models called", "Calls saved", ...(cost ? ["$ for 1,000", "Cost saved"] : []),
      "Abstains", "Avoidable misses", ...names.map((name) => `Right, by ${way(name)}`)];
    fill("table-levels", head, levels.map((level, i) => [
      level.name, pct(group.risk[i]), pct(group.upper[i]), group.lower[i] > 0 ? pct(group.lower[i]) : "–", pct(group.expected[i]), pct(group.std[i]), two(group.size[i]),
      pct(group.calls_saved[i]), ...(cost ? [dollars(group.cost[i]), pct(group.cost_saved?.[i])] : []), pct(group.abstention[i]),
      pct(group.avoidable_miss[i]), ...names.map((name) => pct(group.accuracy[name][i])),
    ]), row, head.length - names.length, [head.length - 1, head.length - names.length + names.indexOf(state.aggregation)]);
    put("levels-summary", `${groupName(group, state.group)} at every α`);
  }

  // --- the numbers at the top ---

  function verdict(group, row) {
    const risk = group.risk[row], upper = known(group.upper[row]), expected = known(group.expected[row]), sd = known(group.std[row]);
    if (upper === null) return ["nothing promised", ""];
    if (risk <= upper) return ["at most α here", "good"];
    if (expected === null) return ["above α", "warn"];
    if (risk <= expected + 2 * sd) return ["above α, within chance", "warn"];
    return ["higher than chance explains", "bad"];
  }

  function numbers(group, row) {
    const level = levels[row], chosen = state.aggregation, full = ensemble(group);
    const upper = known(group.upper[row]), lower = known(group.lower[row]);
    put("alpha-text", level.name);
    $("alpha").setAttribute("aria-valuetext", `alpha ${level.name}`);
    $("own").disabled = row === own;
    put("v-risk", pct(group.risk[row]));
    const [words, kind] = verdict(group, row);
    put("verdict", words);
    $("verdict").className = `pill ${kind}`;
    put("n-risk", upper === null ? "No promise is made for just these queries at this level."
      : `Promise: at most ${pct(upper)}${lower > 0 ? ` and above ${pct(lower)}` : ""}. Expected on this sample: ${pct(group.expected[row])} ± ${pct(2 * group.std[row])} (2 sd).`);
    put("v-size", two(group.size[row]));
    put("n-size", `of ${count(numModels)}, on average`);
    put("v-saved", pct(group.calls_saved[row]));
    put("n-saved", numModels === 1 ? "against always calling it" : `against calling all ${count(numModels)}`);
    show("tile-cost", group.cost !== null);
    if (group.cost !== null) {
      put("v-cost", dollars(group.cost[row]));
      put("n-cost", group.cost_saved === null ? `all models: ${dollars(full.cost)}` : `saves ${pct(group.cost_saved[row])} of ${dollars(full.cost)} for all models`);
    }
    put("v-accuracy", pct(group.accuracy[chosen][row]));
    put("n-accuracy", `${way(chosen)}; all models ${pct(full.accuracy[chosen])}, best single ${pct(single(group))}`);
    put("v-abstention", pct(group.abstention[row]));
    put("n-abstention", "no model is plausible enough");
    put("v-miss", pct(group.avoidable_miss[row]));
    put("n-miss", "some model is right, but no called one");
    const saves = `saving ${pct(group.calls_saved[row])} of the calls${group.cost_saved ? ` and ${pct(group.cost_saved[row])} of the cost` : ""}`;
    put("sentence", `At α = ${level.name} the router calls ${two(group.size[row])} of ${plural(numModels, "model")} for a query, ${saves} against asking all of them. `
      + `Answers chosen by ${way(chosen)} are right for ${pct(group.accuracy[chosen][row])} of ${queries(group.num_queries)}; ${pct(group.risk[row])} are misrouted`
      + `${upper === null ? "" : `, where at most ${pct(upper)} is promised`}.`);
    put("guarantee", level.guarantee);
    items("warnings", level.warnings);
    put("deployed", row === own ? `The racer as it was saved is at α = ${ev.alpha}.`
      : `The racer as it was saved is at α = ${ev.alpha}; this is what it would promise at ${level.name}. An α chosen by these figures keeps its promise, for they did not set the thresholds; but the best of many looks a little better here than it is.`);
    put("risk-note", upper === null ? "Nothing is promised for just these queries; see the notes." : `Calibrated on ${queries(group.num_calibration)}, seen on ${queries(group.num_queries)}.`);
  }

  function update() {
    const group = ev.groups[state.group], row = state.row;
    numbers(group, row);
    drawRisk(group, row);
    drawSaved(group, row);
    drawAccuracy(group, row);
    drawCalled(group, row);
    drawFixed(group, row);
    drawStops(row);
    drawGroups(row);
    fillLevels(group, row);
    fill("table-called", ["Model", "Called for"], ev.models.map((model) => [model, pct(group.called[model][row])]));
  }

  // --- once ---

  function start() {
    const whole = ev.groups[0], calibration = data.calibration;
    const kind = { inverse_probability: "inverse_probability (RACER-P)", gap: "gap (RACER-G)", static: "static (the same order for all queries)", J: "J (RACER-J: what a model adds near this question)", J_learned: "J_learned (RACER-J, what a model adds is learned)" }[ev.nonconformity] ?? ev.nonconformity;
    put("facts", [plural(numModels, "model"), `${queries(whole.num_queries)} evaluated`,
      `calibrated on ${queries(calibration.num_queries)}, ${calibration.date.slice(0, 10)}`, kind, `null mode “${ev.null}”`, `label rule: ${ev.label_rule}`].join(" · "));
    const slider = $("alpha");
    slider.max = String(levels.length - 1);
    slider.value = String(own);
    slider.disabled = levels.length === 1;
    put("alpha-first", levels[0].name);
    put("alpha-last", levels.at(-1).name);
    put("own", `back to ${ev.alpha}`);
    options("group", ev.groups.map((group, i) => [String(i), `${groupName(group, i)} (${count(group.num_queries)})`]));
    // A single group is all queries once more.
    show("group-control", ev.groups.length > 2);
    show("groups", ev.groups.length > 2);
    show("stops", Boolean(stops));
    if (stops) {
      options("stop-level", stops.levels.map((level, i) => [String(i), levelName(level)]));
      $("stop-level").value = String(stops.own);
      $("stop-level").addEventListener("change", update);
    }
    const names = Object.keys(whole.accuracy);
    state.aggregation = names.includes(MAJORITY) ? MAJORITY : names[0];
    options("aggregation", names.map((name) => [name, capital(way(name))]));
    $("aggregation").value = state.aggregation;
    show("axis-control", whole.cost !== null);
    warnOfSeen(ev.num_seen, whole.num_queries);
    items("notes", ev.notes.filter((note) => !levels[own].warnings.includes(note)));
    const moveTo = (row) => { state.row = row; slider.value = String(row); update(); };
    slider.addEventListener("input", () => moveTo(Number(slider.value)));
    $("own").addEventListener("click", () => { moveTo(own); slider.focus(); });
    $("group").addEventListener("change", (event) => { state.group = Number(event.target.value); update(); });
    $("aggregation").addEventListener("change", (event) => { state.aggregation = event.target.value; update(); });
    document.querySelectorAll("input[name=axis]").forEach((radio) =>
      radio.addEventListener("change", () => { state.axis = radio.value; update(); }));
    drawPage(update);
  }
  start();
