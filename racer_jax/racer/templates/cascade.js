// The report of a cascade alone; page.js stands before it in the same function.
  const stops = data.sequential, cascade = data.cascade, levels = stops.levels;
  const reference = referenceName(stops);
  const state = { row: stops.own };
  const x = levels.map((level) => level.value);
  const has = (name) => levels.some((level) => known(level[name]) !== null);
  const hasDollars = has("dollars"), hasLabels = has("accuracy"), hasRisk = has("risk");
  // The loss as the event that alpha bounds.
  const EVENT = {
    regret: `Wrong where ${reference} is right`, differs: `Differs from ${reference}`,
    covers: "No called model is right, some other is", wrong: "Wrong answers",
  };
  const xaxis = () => axis("risk level α (0: decided votes alone)", { hoverformat: ".3~f", range: spread(x) });

  function drawLine(id, name, unit, values, extra = [], yaxis = axis(unit, { rangemode: "tozero" })) {
    draw(id, [...extra, line(name, x, values), here(x[state.row], values[state.row], "now")],
      { xaxis: xaxis(), yaxis, shapes: [verticalLine(x[state.row])] },
      `${capital(unit)} against alpha; the table of all figures has the numbers.`);
  }
  const flat = (name, value) => dash(name, spread(x), [value, value], colour.promise);

  function drawCharts(at) {
    drawLine("chart-calls", "one after another", "calls for a query", levels.map((level) => level.calls), [flat("all called", stops.order.length)]);
    if (hasDollars) {
      drawLine("chart-cost", "one after another", "dollars for 1,000 queries", levels.map((level) => 1000 * level.dollars), [flat("all called", 1000 * at.full_dollars)]);
    }
    if (hasLabels) {
      const edge = (sign) => levels.map((level) => level.accuracy + sign * 2 * (known(level.accuracy_error) ?? 0));
      drawLine("chart-accuracy", "one after another", "answered rightly", levels.map((level) => level.accuracy), [
        line("", x, edge(-1), { line: { width: 0 }, showlegend: false, hoverinfo: "skip" }),
        line("± 2 standard errors", x, edge(1), { line: { width: 0 }, fill: "tonexty", fillcolor: colour.band, hoverinfo: "skip" }),
        flat(reference, at.full_accuracy),
      ], share("answered rightly", { rangemode: "normal" }));
    }
    if (hasRisk) {
      drawLine("chart-risk", "seen here", "risk", levels.map((level) => level.risk),
        [dash("promise: at most α", [0, Math.max(...x)], [0, Math.max(...x)], colour.promise)], share("risk"));
    }
  }

  function numbers(at) {
    const name = levelName(at), most = stops.order.length;
    put("alpha-text", at.value === 0 ? "decided votes alone" : at.alpha);
    $("alpha").setAttribute("aria-valuetext", name);
    $("own").disabled = state.row === stops.own;
    put("v-calls", two(at.calls));
    put("n-calls", `of ${count(most)}, ± ${two(2 * (known(at.calls_error) ?? 0))} (2 standard errors); ${two(at.rounds)} rounds`);
    if (hasDollars) {
      put("v-cost", dollars(at.dollars));
      put("n-cost", `all called: ${dollars(at.full_dollars)}`);
    }
    put("v-accuracy", pct(at.accuracy));
    put("n-accuracy", `${reference}: ${pct(at.full_accuracy)}, difference ${points(at.accuracy - at.full_accuracy)} ± ${(200 * (known(at.difference_error) ?? 0)).toFixed(1)} points (2 standard errors)`);
    put("t-risk", EVENT[at.loss] ?? at.loss);
    put("v-risk", pct(at.risk));
    put("n-risk", at.value === 0 ? "none by construction where the vote is the reference" : `the threshold is set for at most ${pct(at.value)}`);
    const money = at.dollars === null ? "" : ` and ${dollars(at.dollars)} for 1,000 queries instead of ${dollars(at.full_dollars)}`;
    put("sentence", `${at.value === 0 ? "Stopped where the vote is decided" : `Stopped at ${name}`}, a query takes ${two(at.calls)} of ${plural(most, "call")}${money}. `
      + (hasLabels ? `Its answer is right for ${pct(at.accuracy)} of ${queries(at.num_queries)}; ${reference} is right for ${pct(at.full_accuracy)}.`
        : `The answer differs from that of ${reference} for ${pct(at.differs)} of ${queries(at.num_queries)}, which have no labels.`));
    put("guarantee", at.guarantee);
    put("deployed", cascade.alpha === null
      ? "The cascade has no calibration, so there is one level to show. Calibrated on other queries, it stops earlier."
      : `The cascade as it was saved is at α = ${cascade.alpha}.`);
  }

  function fillWhy(at) {
    const reasons = Object.entries(at.stopped_because).filter(([, shares]) => shares.some((s) => s > 0));
    let reached = 0;
    const rows = at.stopped_after.map((stopped, i) => {
      reached += stopped;
      return [plural(i + 1, "call"), pct(stopped), ...reasons.map(([, shares]) => pct(shares[i])), pct(Math.min(reached, 1))];
    });
    fill("table-why", ["Stops after", "Queries", ...reasons.map(([reason]) => capital(WHY[reason])), "By then"], rows);
  }

  function fillOrder(at) {
    const priced = cascade.mean_cost !== null;
    let reached = 1;
    const rows = stops.order.map((model, i) => {
      const calledFor = reached;
      reached -= at.stopped_after[i];
      const price = priced ? [dollars(cascade.mean_cost[i])] : [];
      return [String(i + 1), model, two(cascade.weights[i]), ...price, pct(Math.max(calledFor, 0))];
    });
    fill("table-order", ["Call", "Model", "Vote weight", ...(priced ? ["$ for 1,000 calls"] : []), "Called for"], rows);
  }

  function update() {
    const at = levels[state.row];
    numbers(at);
    put("stops-why", `Share of the queries by the number of calls after which they stop at ${levelName(at)}.`);
    drawStopsAfter(stops, at);
    fillWhy(at);
    drawCharts(at);
    fillOrder(at);
    fillStops(stops, state.row);
  }

  function start() {
    const calibrated = cascade.alpha === null ? "not calibrated" : `calibrated on ${queries(cascade.num_queries)}, ${cascade.date.slice(0, 10)}`;
    put("facts", [plural(stops.order.length, "call"), `${queries(levels[0].num_queries)} evaluated`, calibrated, `loss “${cascade.loss}”`, `normal form “${cascade.form}”`,
      `label rule: ${cascade.label_rule}`].join(" · "));
    const slider = $("alpha");
    slider.max = String(levels.length - 1);
    slider.value = String(stops.own);
    slider.disabled = levels.length === 1;
    put("alpha-first", "decided");
    put("alpha-last", levels.at(-1).value === 0 ? "" : levels.at(-1).alpha);
    put("own", cascade.alpha === null ? "" : `back to ${cascade.alpha}`);
    show("tile-cost", hasDollars);
    show("card-cost", hasDollars);
    show("tile-accuracy", hasLabels);
    show("card-accuracy", hasLabels);
    show("card-risk", hasRisk && levels.length > 1);
    put("risk-note", `Share of the queries with the loss “${cascade.loss}”. The promise is an average over calibration sets, so the share seen may lie above it by chance.`);
    put("order-note", `The same for every query; ${reference} is the reference. A model of weight 0 has no vote.`);
    warnOfSeen(stops.num_seen, levels[0].num_queries);
    items("notes", data.notes);
    const moveTo = (row) => { state.row = row; slider.value = String(row); update(); };
    slider.addEventListener("input", () => moveTo(Number(slider.value)));
    $("own").addEventListener("click", () => { moveTo(stops.own); slider.focus(); });
    drawPage(update);
  }
  start();
