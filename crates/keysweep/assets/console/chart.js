// Draws the last 30 days of an instance with uPlot, from the rows of the table on the page. Without this script the table is what
// is shown. The texts of the tooltip are those of the table, so that all numbers are formatted by the server alone.
"use strict";

(() => {
  const place = document.getElementById("plots");
  if (!place || typeof uPlot === "undefined") return;

  const DAY = 86400;
  const AXIS_WIDTH = 68;
  const PANELS = [
    { title: "Stale share", names: ["share", "hint", "low", "high"], height: 210, values: percent },
    { title: "Used memory", names: ["memory"], height: 110, values: size, increments: powers() },
    { title: "Keys reclaimed by scans", names: ["reclaimed"], height: 84, values: count },
  ];
  const utc = (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC");
  const two = (number) => String(number).padStart(2, "0");

  let plots = [];
  let rows = [];
  let times = [];
  let shown = null;
  let drawn = "";
  let track, tip;

  function powers() {
    return Array.from({ length: 50 }, (_, power) => 2 ** power);
  }

  function percent(share) {
    return `${+(share * 100).toFixed(2)} %`;
  }

  function size(bytes) {
    const units = ["B", "KiB", "MiB", "GiB", "TiB"];
    const unit = Math.min(bytes > 0 ? Math.floor(Math.log2(bytes) / 10) : 0, units.length - 1);
    return `${+(bytes / 1024 ** unit).toFixed(1)} ${units[unit]}`;
  }

  function count(number) {
    const units = ["", " k", " M", " G", " T"];
    const unit = Math.min(number > 0 ? Math.floor(Math.log10(number) / 3) : 0, units.length - 1);
    return `${+(number / 1000 ** unit).toFixed(1)}${units[unit]}`;
  }

  function time(seconds, increment) {
    const date = utc(seconds);
    const day = `${two(date.getMonth() + 1)}-${two(date.getDate())}`;
    const clock = `${two(date.getHours())}:${two(date.getMinutes())}`;
    return increment >= DAY || clock === "00:00" ? day : clock;
  }

  /** Returns the values of a column; undefined where a row has none, which does not interrupt a line. */
  function column(name) {
    return rows.map(({ dataset }) => (dataset[name] === undefined ? undefined : Number(dataset[name])));
  }

  function colors() {
    const style = getComputedStyle(document.documentElement);
    const color = (name) => style.getPropertyValue(`--${name}`).trim();
    return { line: color("accent"), muted: color("muted"), grid: color("line"), event: color("busy"), ground: color("surface") };
  }

  function series(name, color) {
    const isEnd = name === "low" || name === "high";
    return {
      stroke: isEnd ? undefined : color.line,
      fill: name === "reclaimed" ? color.line : undefined,
      width: isEnd ? 0 : name === "reclaimed" ? 0 : 2,
      dash: name === "hint" ? [4, 4] : undefined,
      paths: name === "reclaimed" ? uPlot.paths.bars({ size: [0.6, 8, 3] }) : undefined,
      points: isEnd || name === "reclaimed" ? { show: false } : { size: 5, stroke: color.line, fill: color.ground },
    };
  }

  /** Marks scans and changes of settings: the first with a line, the others with a dashed line and a triangle. */
  function drawEvents(plot, color) {
    const { ctx, bbox } = plot;
    const ratio = devicePixelRatio;
    ctx.save();
    ctx.lineWidth = ratio;
    rows.forEach(({ dataset }, index) => {
      if (!dataset.event) return;
      const x = Math.round(plot.valToPos(times[index], "x", true));
      const isConfig = dataset.event === "config";
      ctx.strokeStyle = ctx.fillStyle = isConfig ? color.event : color.muted;
      ctx.setLineDash(isConfig ? [5 * ratio, 3 * ratio] : []);
      ctx.globalAlpha = isConfig ? 1 : 0.45;
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
      if (!isConfig) return;
      ctx.beginPath();
      ctx.moveTo(x - 5 * ratio, bbox.top);
      ctx.lineTo(x + 5 * ratio, bbox.top);
      ctx.lineTo(x, bbox.top + 7 * ratio);
      ctx.fill();
    });
    ctx.restore();
  }

  /** Draws the target, and the range in which hold leaves the settings as they are. */
  function drawTarget(plot, { target, floor }, color) {
    const { ctx, bbox } = plot;
    const y = (share) => Math.round(plot.valToPos(share, "y", true));
    ctx.save();
    if (floor !== undefined) {
      ctx.globalAlpha = 0.1;
      ctx.fillStyle = color.event;
      ctx.fillRect(bbox.left, y(target), bbox.width, y(floor) - y(target));
      ctx.globalAlpha = 1;
    }
    ctx.strokeStyle = color.event;
    ctx.lineWidth = 1.5 * devicePixelRatio;
    ctx.setLineDash([8 * devicePixelRatio, 4 * devicePixelRatio]);
    ctx.beginPath();
    ctx.moveTo(bbox.left, y(target));
    ctx.lineTo(bbox.left + bbox.width, y(target));
    ctx.stroke();
    ctx.restore();
  }

  function plot(panel, columns, data, isLast, color) {
    const target = panel.title === "Stale share" && data.target !== undefined ? Number(data.target) : undefined;
    const goal = { target, floor: data.floor === undefined ? undefined : Number(data.floor) };
    const axis = { stroke: color.muted, grid: { stroke: color.grid, width: 1 }, ticks: { show: false }, font: "12px system-ui" };
    const title = document.createElement("p");
    title.className = "plot-title";
    title.textContent = panel.title;
    const box = document.createElement("div");
    track.append(title, box);
    const made = new uPlot(
      {
        width: track.clientWidth,
        height: panel.height + (isLast ? 24 : 0),
        tzDate: utc,
        legend: { show: false },
        cursor: { y: false, drag: { x: false, y: false }, points: { show: false } },
        padding: [8, 12, isLast ? 0 : 6, 0],
        scales: {
          x: { time: true, range: () => [Number(data.from), Number(data.to)] },
          y: { range: (_, low, high) => [0, Math.max(high ?? 0, target ?? 0) * 1.1 || 1] },
        },
        axes: [
          { ...axis, size: isLast ? 28 : 0, space: 60, values: (_, splits, __, ___, increment) => (isLast ? splits.map((at) => time(at, increment)) : splits.map(() => "")) },
          { ...axis, size: AXIS_WIDTH, space: 36, values: (_, splits) => splits.map(panel.values), ...(panel.increments && { incrs: panel.increments }) },
        ],
        series: [{}, ...panel.names.map((name) => series(name, color))],
        bands: panel.names.includes("high") ? [{ series: [panel.names.indexOf("high") + 1, panel.names.indexOf("low") + 1], fill: `${color.line}33` }] : [],
        hooks: {
          drawClear: [(plot) => target !== undefined && drawTarget(plot, goal, color)],
          draw: [(plot) => panel.names[0] === "reclaimed" || drawEvents(plot, color)],
          setCursor: [(plot) => (plot.cursor.left >= 0 && plot.cursor.idx !== null ? show(plot.cursor.idx) : hide())],
        },
      },
      [times, ...columns],
      box,
    );
    return made;
  }

  /** Returns the texts of a row: its time, and each cell that says something with its heading. */
  function texts(row) {
    const cells = [...row.cells].filter((cell) => cell.textContent.trim());
    return cells.map((cell, index) => (index ? `${cell.dataset.label}: ${cell.textContent.trim()}` : cell.textContent.trim()));
  }

  /** Shows the row of an index at the cursor of every plot. */
  function show(index) {
    shown = index;
    const lines = texts(rows[index]).map((text, line) => {
      const element = document.createElement(line ? "span" : "strong");
      element.textContent = text;
      return element;
    });
    tip.replaceChildren(...lines);
    tip.hidden = false;
    for (const plot of plots) plot.setCursor({ left: plot.valToPos(times[index], "x"), top: 0 }, false);
    const left = AXIS_WIDTH + plots[0].valToPos(times[index], "x");
    const isRight = left + tip.offsetWidth + 14 > track.clientWidth;
    tip.style.left = `${Math.max(0, isRight ? left - tip.offsetWidth - 10 : left + 10)}px`;
    track.setAttribute("aria-valuenow", index);
    track.setAttribute("aria-valuetext", texts(rows[index]).join(", "));
  }

  function hide() {
    shown = null;
    tip.hidden = true;
    for (const plot of plots) plot.setCursor({ left: -10, top: -10 }, false);
  }

  /** Returns the row that a key leads to; null: the key does nothing here. */
  function wanted(key, from) {
    const last = rows.length - 1;
    const within = (index) => Math.min(Math.max(index, 0), last);
    switch (key) {
      case "ArrowLeft":
      case "ArrowDown":
        return within(from - 1);
      case "ArrowRight":
      case "ArrowUp":
        return within(from + 1);
      case "PageUp":
        return within(times.findLastIndex((at) => at <= times[from] - DAY));
      case "PageDown":
        return within(times.findIndex((at) => at >= times[from] + DAY) === -1 ? last : times.findIndex((at) => at >= times[from] + DAY));
      case "Home":
        return 0;
      case "End":
        return last;
      default:
        return null;
    }
  }

  function makeTrack() {
    track = document.createElement("div");
    track.className = "track";
    track.tabIndex = 0;
    for (const [name, value] of Object.entries({ role: "slider", "aria-label": "Time in the charts of the last 30 days", "aria-valuemin": 0 })) {
      track.setAttribute(name, value);
    }
    track.addEventListener("keydown", (event) => {
      if (event.key === "Escape") return hide();
      const index = event.ctrlKey || event.metaKey || event.altKey ? null : wanted(event.key, shown ?? rows.length - 1);
      if (index === null) return;
      event.preventDefault();
      show(index);
    });
    track.addEventListener("focus", () => track.matches(":focus-visible") && show(shown ?? rows.length - 1));
    track.addEventListener("blur", hide);
    tip = document.createElement("div");
    tip.className = "tip";
    tip.hidden = true;
    place.replaceChildren(track);
  }

  function draw(isForced) {
    const table = document.getElementById("trend-data");
    const found = [...table.querySelectorAll("tbody tr")].reverse();
    const state = JSON.stringify([found.map(({ dataset }) => ({ ...dataset })), table.dataset.target]);
    if (state === drawn && !isForced) return;
    drawn = state;
    const at = shown === null ? null : times[shown];
    plots.forEach((plot) => plot.destroy());
    [plots, rows, shown] = [[], found, null];
    times = column("at");
    const panels = PANELS.map((panel) => [panel, panel.names.map(column)]);
    const known = panels.filter(([, columns]) => columns.flat().some((value) => value !== undefined));
    // Changes of settings alone are no chart; the table shows them.
    place.hidden = document.getElementById("plots-hint").hidden = known.length === 0;
    if (place.hidden) return;
    if (!track) {
      makeTrack();
      table.querySelector("details").open = false;
    }
    track.replaceChildren();
    const color = colors();
    plots = known.map(([panel, columns], index) => plot(panel, columns, table.dataset, index === known.length - 1, color));
    track.append(tip);
    track.setAttribute("aria-valuemax", rows.length - 1);
    track.setAttribute("aria-valuenow", rows.length - 1);
    track.setAttribute("aria-valuetext", texts(rows.at(-1)).join(", "));
    tip.hidden = true;
    if (at !== null && times.includes(at)) show(times.indexOf(at));
  }

  draw(true);
  document.addEventListener("refreshed", () => draw(false));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => draw(true));
  new ResizeObserver(() => {
    if (plots.every(({ width }) => width === track.clientWidth)) return;
    for (const plot of plots) plot.setSize({ width: track.clientWidth, height: plot.height });
    if (shown !== null) show(shown);
  }).observe(place);
})();
