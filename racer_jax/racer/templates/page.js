// What the pages share: numbers as words, tables, charts, and what stopping early has on both.
// A page's own script follows; both stand in one function, made by racer_jax.racer.report.
// Names come from users: they go to the page as text, and escaped to Plotly.
  const data = JSON.parse(document.getElementById("report-data").textContent);
  // Charts keep the width of the screen when printed, unless it is set; this fits A4 and Letter.
  const PAPER_WIDTH = 630;
  const paper = { on: false };
  const $ = (id) => document.getElementById(id);

  // --- words and numbers ---

  // NaN and infinities are strings in the JSON.
  const known = (x) => (typeof x === "number" && Number.isFinite(x) ? x : null);
  const pct = (x) => {
    const value = known(x);
    if (value === null) return "–";
    const percent = 100 * value;
    if (Math.abs(percent) < 0.005) return "0.0%";
    return `${percent.toFixed(Math.abs(percent) < 1 ? 2 : 1)}%`;
  };
  const points = (x) => (known(x) === null ? "–" : `${x <= -0.0005 ? "−" : "+"}${Math.abs(100 * x).toFixed(1)}`);
  const two = (x) => (known(x) === null ? "–" : x.toFixed(2));
  const count = (x) => x.toLocaleString("en-US");
  const dollars = (perQuery) => {
    if (known(perQuery) === null) return "–";
    const x = 1000 * perQuery;
    if (x === 0) return "$0";
    if (x >= 1000) return `$${x.toLocaleString("en-US", { maximumFractionDigits: 0 })}`;
    return x >= 1 ? `$${x.toFixed(2)}` : `$${x.toPrecision(3)}`;
  };
  const plural = (n, word) => `${count(n)} ${word}${n === 1 ? "" : "s"}`;
  const queries = (n) => `${count(n)} ${n === 1 ? "query" : "queries"}`;
  const shorten = (text, width) => (text.length <= width ? text : `${text.slice(0, width - 1)}…`);
  // Plotly reads a little markup in labels.
  const label = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
  const capital = (text) => text[0].toUpperCase() + text.slice(1);
  const put = (id, text) => { $(id).textContent = text; };
  const show = (id, wanted) => { $(id).hidden = !wanted; };

  // --- tables ---

  const element = (tag, text) => {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    return made;
  };
  // Columns from `minor` on, but those in `kept`, are left out on paper.
  function fill(id, head, rows, marked = -1, minor = Infinity, kept = []) {
    const table = $(id);
    table.querySelectorAll("thead, tbody").forEach((part) => part.remove());
    const top = element("tr");
    const less = (cell, j) => cell.classList.toggle("minor", j >= minor && !kept.includes(j));
    head.forEach((name, j) => {
      const cell = element("th", name);
      cell.scope = "col";
      less(cell, j);
      top.append(cell);
    });
    const thead = element("thead"), tbody = element("tbody");
    thead.append(top);
    rows.forEach((row, i) => {
      const line = element("tr");
      row.forEach((text, j) => {
        // A number and its error stay on one line.
        const cell = element(j ? "td" : "th", String(text).replaceAll(" ± ", "\u00a0±\u00a0"));
        if (j) cell.dataset.label = head[j];
        else cell.scope = "row";
        less(cell, j);
        line.append(cell);
      });
      if (i === marked) {
        line.className = "now";
        line.setAttribute("aria-current", "true");
      }
      tbody.append(line);
    });
    table.append(thead, tbody);
  }
  const items = (id, texts) => $(id).replaceChildren(...texts.map((text) => element("li", text)));

  // --- charts ---

  let colour = {};
  const readColours = () => {
    const style = getComputedStyle(document.documentElement);
    const names = ["ink", "muted", "card", "rule", "grid", "accent", "band", "fixed", "promise", "other", "good"];
    colour = Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
  };
  const axis = (title, more = {}) => ({
    title: { text: title, standoff: 8 }, gridcolor: colour.grid, linecolor: colour.rule, zeroline: false,
    fixedrange: true, automargin: true, ...more,
  });
  const share = (title, more = {}) => axis(title, { tickformat: ".0%", rangemode: "tozero", hoverformat: ".1%", ...more });
  const narrow = () => window.innerWidth < 620;
  const legend = () => ({ orientation: "h", x: 0, y: narrow() ? -0.34 : -0.25, yanchor: "top", font: { size: 12.5 } });
  function draw(id, traces, layout, summary) {
    const box = $(id);
    if (layout.height) box.style.height = `${layout.height}px`;
    const made = {
      margin: { l: 46, r: 12, t: 10, b: 40 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: colour.ink },
      legend: legend(),
      hoverlabel: { bgcolor: colour.card, bordercolor: colour.rule, font: { color: colour.ink, size: 13 } },
      dragmode: false, hovermode: "x unified", showlegend: true, ...layout, ...(paper.on ? { width: PAPER_WIDTH } : {}),
    };
    Plotly.react(box, traces, made, { displayModeBar: false, responsive: true, scrollZoom: false, doubleClick: false });
    box.setAttribute("aria-label", summary);
  }
  const line = (name, x, y, more = {}) => ({
    type: "scatter", mode: "lines", name: label(name), x, y: y.map(known), line: { color: colour.accent, width: 2.5 }, ...more,
  });
  const dash = (name, x, y, color, style = "dash") => line(name, x, y, { line: { color, width: 2, dash: style } });
  const here = (x, y, text, color = colour.accent) => ({
    type: "scatter", mode: "markers", x: [x], y: [known(y)], hoverinfo: "skip", showlegend: false,
    marker: { size: 12, color, line: { color: colour.card, width: 2 } }, name: text,
  });
  const verticalLine = (x, color = colour.muted) => ({
    type: "line", x0: x, x1: x, y0: 0, y1: 1, yref: "paper", line: { color, width: 1, dash: "dot" }, layer: "below",
  });
  function spread(values) {
    const low = Math.min(...values), high = Math.max(...values), room = 0.02 * (high - low) || 0.01;
    return [low - room, high + room];
  }

  // --- one model after another ---

  const WHY = { decided: "the vote is decided", risk: "the predicted loss is small enough", "all called": "all are called", abstained: "no stop is safe: no answer" };
  // Its level is chosen apart: what alpha bounds is another loss than that of a set.
  const levelName = (level) => (level.value === 0 ? "decided votes alone" : `α = ${level.alpha}`);
  const referenceName = (stops) => (stops.reference === null ? "the full vote" : stops.reference);

  function drawStopsAfter(stops, at) {
    const after = stops.order.map((_, i) => i + 1);
    const reasons = Object.entries(at.stopped_because).filter(([, shares]) => shares.some((s) => s > 0));
    const colours = { decided: colour.accent, risk: colour.good, "all called": colour.fixed, abstained: colour.other };
    draw("chart-stops-after", reasons.map(([reason, shares]) => ({
      type: "bar", name: WHY[reason], x: after, y: shares, marker: { color: colours[reason] }, hovertemplate: `%{y:.1%}: ${WHY[reason]}<extra></extra>`,
    })), {
      barmode: "stack", xaxis: axis("calls after which it stops", { tickvals: after, showgrid: false }), yaxis: share("queries"), height: 260,
    }, `Queries by the number of calls after which they stop: ${after.map((k, i) => `${k} ${pct(at.stopped_after[i])}`).join(", ")}.`);
  }

  const stopsWhy = (stops, at) => `How many calls it takes at ${levelName(at)}, and why it stops there; the order is ${stops.order.join(", ")}.`
      + (stops.num_seen ? ` ${queries(stops.num_seen)} of these were used to train or calibrate it: the figures are optimistic.` : "");

  function fillStops(stops, place) {
    const reference = referenceName(stops);
    const logged = stops.levels[0].dollars !== null;
    fill("table-stops", ["α", "Calls", "Rounds", ...(logged ? ["$ for 1,000"] : []), "Answered rightly", `Points against ${reference} (± standard error)`, `Wrong where ${reference} is right`, "Differs", "No answer", "Stops after 1", "After 2", "After 3"],
      stops.levels.map((level) => [
        level.value === 0 ? "decided" : level.alpha, two(level.calls), two(level.rounds), ...(logged ? [dollars(level.dollars)] : []), pct(level.accuracy),
        `${points(level.accuracy - level.full_accuracy)} ± ${(100 * (known(level.difference_error) ?? 0)).toFixed(1)}`, pct(level.regret), pct(level.differs), pct(level.abstained),
        ...[0, 1, 2].map((i) => (i < level.stopped_after.length ? pct(level.stopped_after[i]) : "–")),
      ]), place);
  }

  // --- what every page does once ---

  const options = (id, texts) => $(id).replaceChildren(...texts.map(([value, text]) => new Option(text, value)));

  function warnOfSeen(numSeen, num) {
    if (numSeen > 0) {
      const alert = element("p", `${queries(numSeen)} of these ${count(num)} were used for training or calibration: the figures are optimistic.`);
      alert.className = "alert";
      alert.setAttribute("role", "note");
      $("alerts").append(alert);
    }
  }

  // Draws the page, and again whenever its colours or its width change.
  function drawPage(update) {
    const made = data.environment;
    put("made", `Made by racer_jax ${made.racer_jax} with jax ${made.jax}. Everything above is in the JSON; nothing was fetched.`);
    $("download").addEventListener("click", () => {
      const link = element("a");
      link.href = URL.createObjectURL(new Blob([JSON.stringify(data, null, 1)], { type: "application/json" }));
      link.download = "racer-report.json";
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    });
    const repaint = () => { readColours(); update(); };
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);
    matchMedia("(max-width: 620px)").addEventListener("change", repaint);
    matchMedia("print").addEventListener("change", repaint);
    addEventListener("beforeprint", () => {
      document.querySelectorAll("details").forEach((part) => { part.open = true; });
      paper.on = true;
      repaint();
    });
    addEventListener("afterprint", () => { paper.on = false; repaint(); });
    repaint();
  }

